"""Endpoints of desired state, and live ones beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.compiler import Compiler, audiences
from controlplane.compiler.decode import decoded
from controlplane.compiler.endpoints import compile_endpoints
from controlplane.domain import Endpoint, Gateway, Locality, Mirror, Model, Protocol, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS, Endpoints, Health, LiveEndpoint
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, ENDPOINTS, ORDER
from controlplane.snapshot import Audience, Client, Resource, Snapshot
from tests.compiler.cases import check
from tests.compiler.strategies import MODELS, VERSIONS, states

BLUE = Version("blue", (Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80, 3)), Protocol.GRPC)
GREEN = Version("green", (Endpoint("10.0.0.3", 80),), Protocol.GRPC)
NAMED = Version("named", (Endpoint("a.svc", 80),), Protocol.GRPC)
IRIS = Model("iris", ("edge",), (BLUE, GREEN, NAMED), {"blue": 10_000}, mirror=Mirror("green"))
STATE = State({"edge": Gateway("edge", 80)}, {"iris": IRIS, "wine": replace(IRIS, name="wine")})

live_endpoints = st.lists(
    st.builds(
        LiveEndpoint,
        st.ip_addresses().map(str),
        st.integers(1, 65_535),
        st.integers(1, 10_000),
        st.builds(Locality, st.sampled_from(("", "eu", "us")), st.sampled_from(("", "a"))),
        st.sampled_from(Health),
    ),
    max_size=3,
).map(tuple)
endpoints_of_versions = st.builds(
    Endpoints,
    st.dictionaries(st.tuples(st.sampled_from((*MODELS, "nosuch")), st.sampled_from(VERSIONS)), live_endpoints, max_size=5),
)


def addresses(assignment: Any) -> list[tuple[str, int]]:
    sockets = (e.endpoint.address.socket_address for group in assignment.endpoints for e in group.lb_endpoints)
    return [(s.address, s.port_value) for s in sockets]


def test_desired_endpoints_are_one_locality_in_their_order() -> None:
    (resource,) = compile_endpoints("iris/blue", BLUE)
    (group,) = decoded(resource).endpoints
    assert addresses(decoded(resource)) == [("10.0.0.1", 80), ("10.0.0.2", 80)]
    assert [e.load_balancing_weight.value for e in group.lb_endpoints] == [1, 3]
    assert group.HasField("locality")
    assert group.load_balancing_weight.value == 1


def test_live_endpoints_are_grouped_by_locality_with_their_health() -> None:
    a, b = Locality("eu", "eu-1"), Locality("eu", "eu-2")
    live = (
        LiveEndpoint("10.1.0.1", 80, 2, a, Health.HEALTHY),
        LiveEndpoint("10.2.0.1", 80, 1, b, Health.DRAINING),
        LiveEndpoint("10.1.0.2", 80, 3, a, Health.UNHEALTHY),
    )
    (resource,) = compile_endpoints("iris/blue", BLUE, live)
    check([resource])
    message = decoded(resource)
    assert [(g.locality.zone, g.load_balancing_weight.value) for g in message.endpoints] == [("eu-1", 5), ("eu-2", 1)]
    assert addresses(message) == [("10.1.0.1", 80), ("10.1.0.2", 80), ("10.2.0.1", 80)]
    assert [[e.health_status for e in g.lb_endpoints] for g in message.endpoints] == [[1, 2], [3]]


@pytest.mark.parametrize("live", [None, (), (LiveEndpoint("10.1.0.1", 80),)])
def test_a_version_without_eds_has_no_assignment(live: tuple[LiveEndpoint, ...] | None) -> None:
    assert compile_endpoints("iris/named", NAMED, live) == []
    assert compile_endpoints("iris/empty", Version("empty"), live) == []


def changed(before: Snapshot, after: Snapshot) -> dict[str, set[str]]:
    """Names that are not the same object in both, by type, for the types whose mapping is not the same object."""
    return {
        t: {
            n
            for n in {**before.resources[t], **after.resources[t]}
            if before.resources[t].get(n) is not after.resources[t].get(n)
        }
        for t in ORDER
        if before.resources[t] is not after.resources[t]
    }


@pytest.mark.parametrize("client", Client)
def test_other_live_endpoints_change_that_version_and_nothing_else(client: Client) -> None:
    compiler, audience = Compiler(), Audience(("edge",), client)
    before = compiler.compile(STATE, NO_LIVE_ENDPOINTS, audience, 1)
    live = Endpoints({("iris", "blue"): (LiveEndpoint("10.9.0.1", 80),)})
    after = compiler.compile(STATE, live, audience, 1, before)
    assert changed(before, after) == {ENDPOINTS: {"iris/blue"}}
    assert [t for t in ORDER if before.versions[t] != after.versions[t]] == [ENDPOINTS]
    assert addresses(decoded(after.resources[ENDPOINTS]["iris/blue"])) == [("10.9.0.1", 80)]
    # An equal set that was read again changes nothing. An empty set of live endpoints differs from an unknown one.
    again = compiler.compile(STATE, Endpoints({("iris", "blue"): (LiveEndpoint("10.9.0.1", 80),)}), audience, 1, after)
    assert changed(after, again) == {}
    none = compiler.compile(STATE, Endpoints({("iris", "blue"): ()}), audience, 1, again)
    assert changed(again, none) == {ENDPOINTS: {"iris/blue"}}
    assert addresses(decoded(none.resources[ENDPOINTS]["iris/blue"])) == []
    assert compiler.compile(STATE, NO_LIVE_ENDPOINTS, audience, 1, none).resources == before.resources


def test_a_mirrored_version_has_its_live_endpoints_in_both_clusters() -> None:
    compiler, audience = Compiler(), Audience(("edge",))
    before = compiler.compile(STATE, NO_LIVE_ENDPOINTS, audience, 1)
    after = compiler.compile(STATE, Endpoints({("iris", "green"): (LiveEndpoint("10.9.0.1", 80),)}), audience, 1, before)
    assert changed(before, after) == {ENDPOINTS: {"iris/green", "iris/green/mirror"}}


def test_clients_of_both_kinds_share_assignments() -> None:
    compiler, live = Compiler(), Endpoints({("iris", "green"): (LiveEndpoint("10.9.0.1", 80),)})
    envoys, grpc = (compiler.compile(STATE, live, Audience(("edge",), client), 1) for client in Client)
    assert grpc.resources[ENDPOINTS]
    assert all(r is envoys.resources[ENDPOINTS][n] for n, r in grpc.resources[ENDPOINTS].items())


def only_endpoints_change(state: State, history: list[Endpoints]) -> None:
    compiler = Compiler()
    for audience in audiences(state):
        before = compiler.compile(state, NO_LIVE_ENDPOINTS, audience, 0)
        for endpoints in history:
            after = compiler.compile(state, endpoints, audience, 0, before)
            check((r for t in ORDER for r in after.resources[t].values()), after)
            assert changed(before, after).keys() <= {ENDPOINTS}
            assert after.resources[ENDPOINTS].keys() == before.resources[ENDPOINTS].keys()
            assert after == Compiler().compile(state, endpoints, audience, 0)
            assert after.resources[CLUSTER] is before.resources[CLUSTER]
            before = after


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(states(), st.lists(endpoints_of_versions, min_size=1, max_size=3))
def test_live_endpoints_never_change_another_type(state: State, history: list[Endpoints]) -> None:
    only_endpoints_change(state, history)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(states(), st.lists(endpoints_of_versions, min_size=1, max_size=3))
def test_live_endpoints_never_change_another_type_long(state: State, history: list[Endpoints]) -> None:
    only_endpoints_change(state, history)


def test_a_node_gets_a_cluster_of_its_locality_if_dns_names_are_in_several() -> None:
    """Also for copies and as a fallback. The same Envoy gets the same objects, and one without a locality uses all alike."""
    names = (Endpoint("a.svc", 80, region="eu", zone="a"), Endpoint("b.svc", 80, region="us", zone="b"))
    near = Version("near", names, Protocol.GRPC)
    iris = replace(IRIS, versions=(replace(BLUE, fallback=("near",)), near), mirror=None)
    wine = replace(IRIS, name="wine", versions=(BLUE, near), mirror=Mirror("near"))
    state, compiler = State({"edge": Gateway("edge", 80)}, {"iris": iris, "wine": wine}), Compiler()

    def clusters(region: str, zone: str) -> Mapping[str, Resource]:
        audience = Audience(("edge",), place=(region, zone))
        snapshot = compiler.compile(state, NO_LIVE_ENDPOINTS, audience, 1)
        check(snapshot.resources[CLUSTER].values())
        return snapshot.resources[CLUSTER]

    def priorities(held: Mapping[str, Resource], name: str) -> list[int]:
        return [group.priority for group in decoded(held[name]).load_assignment.endpoints]

    eu, us, nowhere = clusters("eu", "a"), clusters("us", "b"), clusters("", "")
    for name in ("iris/near", "iris/blue/fallback/near", "wine/near", "wine/near/mirror"):
        assert [priorities(held, name) for held in (eu, us, nowhere)] == [[0, 1], [1, 0], [0, 0]]
    assert clusters("eu", "a")["iris/near"] is eu["iris/near"]
    assert eu["iris/blue"] is us["iris/blue"]
    fallback = decoded(eu["iris/blue/fallback/near"]).load_assignment.endpoints[0].lb_endpoints[0]
    assert dict(fallback.metadata.filter_metadata["turnout"]) == {"fallback": "near", "suffix": "/fallback/near"}
    assert not decoded(eu["iris/near"]).load_assignment.endpoints[0].lb_endpoints[0].HasField("metadata")
