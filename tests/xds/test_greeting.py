"""Whom a first request is from, by its bytes: always what parsing comes to, or nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from controlplane.snapshot import CLUSTER
from controlplane.xds import greeting
from controlplane.xds.greeting import Greetings, Known
from controlplane.xds.node import identified

DELTA, SOTW = discovery_pb2.DeltaDiscoveryRequest, discovery_pb2.DiscoveryRequest
KINDS = pytest.mark.parametrize(("tag", "kind"), [(0x0A, DELTA), (0x12, SOTW)], ids=["delta", "sotw"])


def first(kind: Any, name: str, extensions: int = 0, zone: str = "a") -> bytes:
    """The first request of an Envoy of this name, with so many extensions."""
    request = kind(type_url=CLUSTER)
    node = request.node
    node.id, node.cluster, node.user_agent_name, node.locality.zone = name, "edge", "envoy", zone
    node.metadata["zone"] = zone
    node.client_features.append("envoy.lb.does_not_support_overprovisioning")
    for number in range(extensions):
        node.extensions.add(name=f"envoy.extension.{number}", category="envoy.filters.http")
    data: bytes = request.SerializeToString()
    return data


def noted(tag: int, kind: Any, *datas: bytes) -> Greetings:
    greetings = Greetings(tag, kind)
    for data in datas:
        greetings.note(data, kind.FromString(data))
    return greetings


def check(known: Known, kind: Any, data: bytes) -> None:
    """It is what parsing comes to."""
    request = kind.FromString(data)
    assert known.who == identified(request.node)
    assert known.node == request.node
    request.ClearField("node")
    assert kind.FromString(known.rest) == request


@KINDS
@pytest.mark.parametrize("extensions", [0, 1, 5, 400])
def test_who_differs_in_the_id_alone_is_known(tag: int, kind: Any, extensions: int) -> None:
    greetings = noted(tag, kind, first(kind, "edge-1", extensions))
    for name in ("edge-1", "edge-2", "e", "ä", "x" * 127):
        data = first(kind, name, extensions)
        known = greetings.meet(data)
        assert known is not None
        check(known, kind, data)
    for name in ("", "x" * 128, "x" * 20_000):
        assert greetings.meet(first(kind, name, extensions)) is None
    for other in (first(kind, "edge-2", extensions + 1), first(kind, "edge-2", extensions, "b"), b"", b"\n", data[:-1]):
        assert greetings.meet(other) is None


@KINDS
def test_an_id_that_is_no_text_is_for_the_parser_to_refuse(tag: int, kind: Any) -> None:
    data = first(kind, "edge-1")
    greetings = noted(tag, kind, data)
    bad = data.replace(b"edge-1", b"edge-\xff")
    with pytest.raises(DecodeError):
        kind.FromString(bad)
    assert greetings.meet(bad) is None


@KINDS
def test_fields_that_are_there_twice_are_parsed(tag: int, kind: Any) -> None:
    data = first(kind, "edge-1")
    inner = base_pb2.Node(id="edge-1", cluster="c").SerializeToString()
    again = bytes((tag, len(inner) + 8)) + inner + base_pb2.Node(id="edge-1").SerializeToString()
    odd = (
        data + bytes((tag, 8)) + base_pb2.Node(id="edge-1").SerializeToString(),  # a second node, with the same id
        data + bytes((tag, 0)),  # one without anything
        again,  # a second id, the same
        bytes((tag, len(inner) + 2)) + inner + b"\x0a\x00",  # an empty one
    )
    for request in odd:
        kind.FromString(request)
        greetings = noted(tag, kind, request)
        assert greetings.meet(request) is None
        assert greetings.meet(request.replace(b"edge-1", b"edge-2", 1)) is None


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "MOST", 20_000)
    monkeypatch.setattr(greeting, "_TRIES", 10_000)
    greetings = Greetings(0x0A, DELTA)
    for number in range(400):
        data = first(DELTA, "n", number % 3, str(number))
        greetings.note(data, DELTA.FromString(data))
        assert greetings.meet(data) is not None
        kept = [n for alike in greetings._noted.values() for n in alike]
        assert greetings._bytes == sum(len(n.tail) + len(n.rest) for n in kept) <= 20_000
        assert len(greetings._order) == len(kept)
        assert all(0 < len(alike) <= 16 for alike in greetings._noted.values())
    huge = first(DELTA, "n", 5_000)
    greetings.note(huge, DELTA.FromString(huge))
    assert greetings.meet(huge) is None


def test_where_each_is_another_nothing_is_noted_any_more() -> None:
    greetings = Greetings(0x0A, DELTA)
    for number in range(1_000):
        data = first(DELTA, "n", zone="z" * number)
        assert greetings.meet(data) is None
        greetings.note(data, DELTA.FromString(data))
    assert len(greetings._order) == 32
    # Until somebody is known again.
    assert greetings.meet(first(DELTA, "n", zone="z")) is not None
    greetings.note(data, DELTA.FromString(data))
    assert greetings.meet(data) is not None


NODES = st.builds(
    base_pb2.Node,
    id=st.sampled_from(["", "a", "b", "edge-1", "x" * 130]),
    cluster=st.sampled_from(["", "c"]),
    client_features=st.lists(st.sampled_from(["f", "g"]), max_size=2),
)


def parts(kind: Any) -> st.SearchStrategy[Message]:
    return st.one_of(st.builds(kind, node=NODES), st.builds(kind, type_url=st.sampled_from(["", CLUSTER])))


@KINDS
@given(data=st.data())
def test_whatever_is_said_is_taken_as_the_parser_takes_it(tag: int, kind: Any, data: st.DataObject) -> None:
    requests = [
        b"".join(part.SerializeToString() for part in data.draw(st.lists(parts(kind), min_size=1, max_size=3)))
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    rng = random.Random(data.draw(st.integers(0, 9)))
    greetings = Greetings(tag, kind)
    for request in requests * 2:
        # As it is, and with a byte that is another.
        broken = bytearray(request)
        if broken:
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        for said in (request, bytes(broken)):
            known = greetings.meet(said)
            if known is not None:
                check(known, kind, said)
                continue
            try:
                greetings.note(said, kind.FromString(said))
            except DecodeError:
                continue
