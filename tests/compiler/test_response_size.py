"""The bytes of responses, compared with those that the protocol serialises."""

from __future__ import annotations

import pytest

from controlplane.compiler.response_size import delta_size, sotw_size
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ORDER, ROUTES
from controlplane.snapshot import Resource, Resources, diff
from controlplane.xds.wire import Encoder

NONCE, VERSION = "1234", "v" * 32


def resources(*created: Resource) -> dict[str, Resources]:
    by_type: dict[str, dict[str, Resource]] = {t: {} for t in ORDER}
    for resource in created:
        by_type[resource.type_url][resource.name] = resource
    return dict(by_type)


def cluster(name: str, body: bytes) -> Resource:
    return Resource.of(CLUSTER, name, body, [(ENDPOINTS, name)])


def of(type_url: str, name: str, length: int) -> Resource:
    return Resource.of(type_url, name, b"x" * length)


@pytest.mark.parametrize("length", [0, 1, 40, 127, 128, 5_000, 20_000, 3_000_000])
def test_each_resource_has_its_wrappers(length: int) -> None:
    old, new = resources(), resources(of(ROUTES, "irïs", length), of(LISTENER, "0.0.0.0:80", length))
    differences = {t: diff(old[t], new[t]) for t in ORDER}
    encoder = Encoder()
    sent = [(t, list(new[t].values())) for t in (ROUTES, LISTENER)]
    delta = sum(len(encoder.delta_response(t, VERSION, NONCE, r, [])) for t, r in sent)
    assert delta_size(new, differences) == delta
    sotw = sum(len(encoder.sotw_response(t, VERSION, NONCE, r)) for t, r in sent)
    assert sotw_size(old, new, differences) == sotw


def test_removed_names_and_endpoints_that_are_sent_again() -> None:
    blue, red, endpoints = cluster("blue", b"1"), cluster("red", b"1"), of(ENDPOINTS, "blue", 100)
    changed = cluster("blue", b"22")
    old, new = resources(blue, red, endpoints), resources(changed, endpoints)
    differences = {t: diff(old[t], new[t]) for t in ORDER}
    encoder = Encoder()
    again = encoder.delta_response(ENDPOINTS, VERSION, NONCE, [endpoints], [])
    parts = [encoder.delta_response(CLUSTER, VERSION, NONCE, r, names) for r, names in (([changed], []), ([], ["red"]))]
    assert delta_size(new, differences) == sum(map(len, (*parts, again)))
    full = [encoder.sotw_response(CLUSTER, VERSION, NONCE, r) for r in ([changed, red], [changed])]
    again = encoder.sotw_response(ENDPOINTS, VERSION, NONCE, [endpoints])
    assert sotw_size(old, new, differences) == sum(map(len, (*full, again)))


def test_nothing_is_nothing() -> None:
    same = resources(of(ROUTES, "iris", 10))
    differences = {t: diff(same[t], same[t]) for t in ORDER}
    assert (delta_size(same, differences), sotw_size(same, same, differences)) == (0, 0)
