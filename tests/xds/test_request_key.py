"""Keys of requests: two keys are equal if and only if the requests have the same meaning."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER, ENDPOINTS
from controlplane.xds.request_key import canonical, has_unordered_key, unordered_key


def delta(names: list[str], known: dict[str, str] | None = None, **more: Any) -> Any:
    return discovery_pb2.DeltaDiscoveryRequest(
        type_url=ENDPOINTS, resource_names_subscribe=names, initial_resource_versions=known or {}, **more
    )


def sotw(names: list[str], **more: Any) -> Any:
    return discovery_pb2.DiscoveryRequest(type_url=ENDPOINTS, resource_names=names, **more)


NAMES = [f"model-{i:03}/{v}" for i in range(50) for v in ("blue", "green")]


@pytest.mark.parametrize(
    "make",
    [
        delta,
        sotw,
        partial(sotw, version_info="1" * 32, response_nonce="17"),
        lambda names: delta(names, dict.fromkeys(names, "0123456789abcdef")),
        lambda names: delta([], dict.fromkeys(names, "0123456789abcdef")),
    ],
    ids=["delta", "sotw", "sotw-ack", "delta-returning", "delta-returning-wildcard"],
)
def test_an_unordered_key_ignores_the_order_of_names(make: Any) -> None:
    request = make(NAMES)
    data = request.SerializeToString()
    assert has_unordered_key(request, data)
    other = NAMES[:]
    random.Random(1).shuffle(other)
    assert unordered_key(make(other).SerializeToString()) == unordered_key(data)
    for less in (NAMES[1:], [*NAMES, "x"], [*NAMES[1:], "y"]):
        assert unordered_key(make(less).SerializeToString()) != unordered_key(data)


def test_an_unordered_key_contains_the_bytes_after_the_names() -> None:
    acks = [sotw(NAMES, version_info="1", response_nonce=n).SerializeToString() for n in ("17", "18")]
    assert unordered_key(acks[0]) != unordered_key(acks[1])


@pytest.mark.parametrize(
    "request_",
    [
        delta([*NAMES, "x" * 26]),
        delta([*NAMES, "a\x1ab"]),
        delta([*NAMES, "x" * 200]),
        delta(NAMES, {"a*b": "1", **dict.fromkeys(NAMES, "1")}),
        delta(NAMES, response_nonce="7"),
        delta(NAMES, resource_names_unsubscribe=["z"]),
    ],
    ids=["length is a tag", "name with a tag", "long name", "version with a tag", "nonce", "bytes after the names"],
)
def test_an_ambiguous_request_has_no_unordered_key(request_: Any) -> None:
    data = request_.SerializeToString()
    assert not has_unordered_key(request_, data) or unordered_key(data)[2]


def test_requests_with_the_same_unordered_key_have_the_same_meaning() -> None:
    """Checked at random: pieces of requests are put together in another order."""
    rng = random.Random(2)
    words = ["a", "b*", "\x1a", "\x1a\x1a", "c" * 26, "d" * 42, "\x01x", "*", "e\x1a\x01f", ""]
    meanings: dict[tuple[Any, Any], object] = {}
    for _ in range(3_000):
        names = rng.choices(words, k=rng.randint(0, 4))
        request = delta(names, {n: rng.choice(words) for n in rng.choices(words, k=rng.randint(0, 2))})
        if rng.random() < 0.3:
            request = sotw(names, response_nonce=rng.choice(words))
        data = request.SerializeToString()
        if has_unordered_key(request, data):
            key = (type(request), unordered_key(data))
            assert meanings.setdefault(key, canonical(request)) == canonical(request)
    # Every other request with one of these keys must mean the same.
    for (kind, parts), meaning in meanings.items():
        pieces = [b"\x1a" + n for n in parts[1]]
        rng.shuffle(pieces)
        data = parts[0] + b"".join(pieces) + parts[2] + b"".join(b"\x2a" + v for v in parts[3])
        if unordered_key(data) == parts:
            assert canonical(kind.FromString(data)) == meaning


def test_the_canonical_key_ignores_the_node_and_the_order_of_names() -> None:
    request = delta(["a", "b"], {"c": "1"})
    other = delta(["b", "a"], {"c": "1"})
    other.node.id = "n"
    assert canonical(request) == canonical(other)


@pytest.mark.parametrize(
    ("request_", "other"),
    [
        (delta(["a"]), delta(["b"])),
        (delta(["a"]), delta(["a"], {"a": "1"})),
        (delta(["a"]), delta(["a"], response_nonce="1")),
        (delta(["a"]), delta([], resource_names_unsubscribe=["a"])),
        (delta(["a"]), delta(["a"], error_detail={"message": ""})),
        (sotw(["a"]), sotw(["a"], version_info="1")),
        (sotw(["a"]), sotw(["a"], response_nonce="1")),
        (sotw(["a"]), discovery_pb2.DiscoveryRequest(type_url=CLUSTER, resource_names=["a"])),
    ],
)
def test_requests_with_different_meanings_have_different_canonical_keys(request_: Any, other: Any) -> None:
    assert canonical(request_) != canonical(other)
