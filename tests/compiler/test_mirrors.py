"""Copies of requests: which are made, and what the cluster of the copies does with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from controlplane.compiler.clusters import compile_mirror
from controlplane.compiler.decode import decoded, unpack
from controlplane.compiler.mirrors import copy_timeout, split_order
from controlplane.compiler.routes import compile_routes
from controlplane.domain import Mirror, Model, Sticky, Timeouts
from tests.compiler.strategies import models
from tests.compiler.values import a_model
from tests.nouns import some

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
BASE = replace(a_model(), mirror=Mirror("green"))


def split_action(model: Model) -> tuple[Any, Any]:
    """The action of the route of the split, and its policy for copies or None."""
    (host,) = decoded(compile_routes(model)).virtual_hosts
    action = host.routes[-1].route
    return action, next(iter([*action.request_mirror_policies, *host.request_mirror_policies]), None)


def copies(model: Model, requests: int) -> int:
    """Return how many requests Envoy copies, if it draws each number below `requests` once.

    From one number follow the cluster, by its weight, and the part that is copied. The metadata of the cluster refuses copies.
    """
    action, policy = split_action(model)
    if policy is None:
        return 0
    part = divisor = 10_000
    if policy.HasField("runtime_fraction"):
        part = policy.runtime_fraction.default_value.numerator
        divisor = {1: 10_000, 2: 1_000_000}[policy.runtime_fraction.default_value.denominator]
    count = begin = 0
    for entry in action.weighted_clusters.clusters:
        end = begin + entry.weight.value
        if not entry.metadata_match.filter_metadata:
            count += sum(begin <= drawn % 10_000 < end and drawn % divisor < part for drawn in range(requests))
        begin = end
    return count


@pytest.mark.parametrize(
    ("share", "basis_points", "expected"),
    [(0, 10_000, 10_000), (0, 500, 500), (5_000, 10_000, 5_000), (5_000, 1_000, 500), (9_999, 1, 1), (10_000, 10_000, 0)],
)
def test_a_version_gets_no_copies_of_its_own_requests_and_the_part_of_the_others(
    share: int, basis_points: int, expected: int
) -> None:
    split = {name: value for name, value in (("blue", 10_000 - share), ("green", share)) if value}
    model = replace(BASE, split=split, mirror=Mirror("green", basis_points))
    assert copies(model, 10_000) == expected


def test_the_part_of_users_requests_that_is_copied_hardly_depends_on_the_version() -> None:
    model = replace(BASE, split={"blue": 5_000, "green": 5_000}, sticky=Sticky("x-user"), mirror=Mirror("green", 1_000))
    assert [v.name for v in split_order(model)] == ["green", "blue"]
    _, policy = split_action(model)
    assert policy.runtime_fraction.default_value.numerator == 100_000
    # Requests without the key: version and part come from one number.
    assert copies(model, 1_000_000) == 50_000


@some
@given(models("iris"))
def test_no_route_copies_to_the_version_that_answers(model: Model) -> None:
    (host,) = decoded(compile_routes(model)).virtual_hosts
    actions = [r.route for r in host.routes]
    targets = [(a.cluster, a) for a in actions if a.cluster]
    targets += [(c.name, c) for a in actions for c in a.weighted_clusters.clusters]
    own = {f"iris/{model.mirror.version}", f"iris/{model.mirror.version}/fallback"} if model.mirror else set()
    others = [name for name, _ in targets if name not in own]
    assert bool(host.request_mirror_policies) == (model.mirror is not None and bool(others))
    for name, target in targets:
        refuses = target.metadata_match.filter_metadata
        assert bool(refuses) == (name in own and bool(others))


def test_the_duration_of_a_copy() -> None:
    assert copy_timeout(BASE, Mirror("green")) == 60
    limited = replace(BASE, timeouts=Timeouts(request=5))
    assert copy_timeout(limited, Mirror("green")) == 5
    assert copy_timeout(limited, Mirror("green", timeout=7)) == 7


def test_copies_are_held_up_to_a_size_and_get_their_headers_back() -> None:
    model = replace(BASE, mirror=Mirror("green", max_request_bytes=77, max_requests=3))
    (resource,) = compile_mirror(model)
    cluster = decoded(resource)
    (limits,) = cluster.circuit_breakers.thresholds
    assert (limits.max_connections.value, limits.max_pending_requests.value, limits.max_requests.value) == (3, 3, 3)
    buffer, headers, _ = unpack(cluster.typed_extension_protocol_options[HTTP_OPTIONS]).http_filters
    assert unpack(buffer.typed_config).max_request_bytes.value == 77
    forwarded, *removed = unpack(headers.typed_config).mutations.request_mutations
    _, policy = split_action(model)
    sent = policy.request_headers_mutations[0].append.header
    assert sent.value == "%REQ(x-forwarded-for)%"
    assert (forwarded.append.header.key, forwarded.append.header.value) == ("x-forwarded-for", f"%REQ({sent.key})%")
    assert [r.remove for r in removed] == [sent.key, "x-envoy-internal"]
