"""Resources for gRPC's own clients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from controlplane.compiler import Compiler
from controlplane.compiler.clusters import cluster_name
from controlplane.compiler.decode import decoded, unpack
from controlplane.compiler.endpoints import compile_endpoints
from controlplane.compiler.message import socket_address
from controlplane.compiler.proxyless import compile_proxyless, obstacle, served_versions, unreachable
from controlplane.domain import FULL_SHARE, Endpoint, Gateway, Model, Protocol, Retries, UpstreamTls, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ORDER, ROUTES, SCOPED_ROUTES
from controlplane.errors import Error
from controlplane.snapshot import Audience, Client, Resource
from tests.compiler.cases import check
from tests.nouns import models, some

IP, NAME = Endpoint("10.0.0.1", 80), Endpoint("a.svc", 80)
BLUE = Version("blue", (IP,), Protocol.GRPC)
GREEN = Version("green", (replace(IP, port=81),), Protocol.HTTP2)
IRIS = Model("iris", ("edge",), (BLUE, GREEN), {"blue": FULL_SHARE})
GRPC = Audience(("edge",), Client.GRPC)


def everything(model: Model) -> list[Resource]:
    """All resources that a gRPC client gets of a model."""
    resources = compile_proxyless(model)
    for version in served_versions(model):
        resources += compile_endpoints(cluster_name(model.name, version.name), version)
    return resources


def names(resources: list[Resource]) -> dict[str, list[str]]:
    return {t: [r.name for r in resources if r.type_url == t] for t in ORDER}


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (BLUE, ""),
        (GREEN, ""),
        (Version("v"), ""),
        (Version("v", (replace(IP, grpc_port=81),)), ""),
        (Version("v", (IP,)), "speaks HTTP/1"),
        (Version("v", (IP,), Protocol.GRPC, UpstreamTls("a.svc")), "is reached over TLS"),
        (Version("v", (NAME,), Protocol.GRPC), ""),
        (Version("v", (NAME, Endpoint("b.svc", 80)), Protocol.GRPC), "has several DNS names"),
    ],
)
def test_versions_that_grpc_clients_cannot_reach(version: Version, reason: str) -> None:
    assert obstacle(version) == reason


def test_the_grpc_ports_of_a_version_that_speaks_http1_are_used() -> None:
    versions = tuple(Version(n, (replace(IP, grpc_port=p),)) for n, p in (("blue", 81), ("green", 82)))
    model = replace(IRIS, versions=versions, preview_header="x-version")
    state = State({"edge": Gateway("edge", 80)}, {"iris": model})
    snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, GRPC, 1)
    assert set(snapshot.resources[CLUSTER]) == set(snapshot.resources[ENDPOINTS]) == {"iris/blue/grpc", "iris/green/grpc"}
    assert snapshot.resources[ROUTES]["iris"].refs == {(CLUSTER, "iris/blue/grpc"), (CLUSTER, "iris/green/grpc")}
    assignment = decoded(snapshot.resources[ENDPOINTS]["iris/green/grpc"])
    assert assignment.endpoints[0].lb_endpoints[0].endpoint.address == socket_address("10.0.0.1", 82)


def test_a_model_is_a_target() -> None:
    listener, routes, *others = everything(IRIS)
    assert (listener.type_url, listener.name, listener.refs) == (LISTENER, "iris", frozenset({(ROUTES, "iris")}))
    assert unpack(decoded(listener).api_listener.api_listener).rds.route_config_name == "iris"
    assert (routes.type_url, routes.name, routes.refs) == (ROUTES, "iris", frozenset({(CLUSTER, "iris/blue")}))
    assert names(others)[CLUSTER] == names(others)[ENDPOINTS] == ["iris/blue", "iris/green"]


def test_a_switch_touches_routes_only() -> None:
    state = State({"edge": Gateway("edge", 80)}, {"iris": IRIS, "wine": replace(IRIS, name="wine")})
    compiler = Compiler()
    before = compiler.compile(state, NO_LIVE_ENDPOINTS, GRPC, 1)
    switched = state.applied(Changes({"models/iris": replace(IRIS, split={"green": FULL_SHARE})}))
    after = compiler.compile(switched, NO_LIVE_ENDPOINTS, GRPC, 2, before)
    assert [t for t in ORDER if after.resources[t] is not before.resources[t]] == [ROUTES]
    assert after.resources[ROUTES]["wine"] is before.resources[ROUTES]["wine"]


def test_endpoints_are_the_same_as_for_envoys() -> None:
    state, compiler = State({"edge": Gateway("edge", 80)}, {"iris": IRIS}), Compiler()
    of_envoys = compiler.compile(state, NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)
    assert compiler.compile(state, NO_LIVE_ENDPOINTS, GRPC, 1).resources[ENDPOINTS] == of_envoys.resources[ENDPOINTS]
    assert compiler.compile(state, NO_LIVE_ENDPOINTS, GRPC, 1).resources[CLUSTER] != of_envoys.resources[CLUSTER]


def test_a_model_that_would_lose_calls_is_left_out() -> None:
    secure = replace(GREEN, tls=UpstreamTls("a.svc"))
    model = replace(IRIS, versions=(BLUE, secure), preview_header="x-version")
    assert unreachable(model) == ["iris/green (it is reached over TLS)"]
    served = names(everything(model))
    assert served[CLUSTER] == served[ENDPOINTS] == ["iris/blue"]
    assert len(decoded(compile_proxyless(model)[1]).virtual_hosts[0].routes) == 2
    shared = replace(model, split={"blue": 9_999, "green": 1})
    assert unreachable(shared) == ["iris (its version green is reached over TLS)"]
    assert everything(shared) == []


def test_calls_that_a_server_may_have_acted_on_are_retried_only_if_the_model_says_so() -> None:
    def policy(retries: Retries) -> str:
        host = decoded(compile_proxyless(replace(IRIS, retries=retries))[1]).virtual_hosts[0]
        return f"{host.retry_policy.retry_on} {host.retry_policy.num_retries.value}" if host.HasField("retry_policy") else ""

    assert policy(Retries(3)) == policy(Retries(0, unsafe=True)) == ""
    assert policy(Retries(3, unsafe=True)) == "unavailable 3"


def test_a_node_gets_the_models_that_it_names() -> None:
    state = State({"edge": Gateway("edge", 80)}, {n: replace(IRIS, name=n) for n in ("iris", "rose", "wine")})
    # Envoys also get the gateway's own answers, with 4 scopes.
    for client, scopes, own in ((Client.GRPC, 0, set()), (Client.ENVOY, 14, {"gateways/edge"})):
        audience = Audience(("edge",), client, frozenset(("iris", "wine", "nosuch")))
        snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, audience, 1)
        check((r for t in ORDER for r in snapshot.resources[t].values()), snapshot)
        assert set(snapshot.resources[ROUTES]) == {"iris", "wine"} | own
        assert {n.partition("/")[0] for n in snapshot.resources[CLUSTER]} == {"iris", "wine"}
        assert len(snapshot.resources[SCOPED_ROUTES]) == scopes
    # The same when the models are added to an earlier snapshot.
    compiler = Compiler()
    before = compiler.compile(State(state.gateways, {}), NO_LIVE_ENDPOINTS, audience, 1)
    after = compiler.compile(state, NO_LIVE_ENDPOINTS, audience, 2, before)
    assert after.resources == snapshot.resources


def place(locality: Any) -> tuple[str, str, str]:
    return locality.region, locality.zone, locality.sub_zone


@some
@given(models())
def test_nothing_that_grpc_refuses_is_compiled(model: Model) -> None:
    """Also nothing that makes calls hang without an error."""
    for resource in everything(model):
        check([resource])
        message = decoded(resource)
        if resource.type_url == LISTENER:
            assert not message.HasField("address")
        elif resource.type_url == CLUSTER:
            assert message.lb_policy == message.ROUND_ROBIN
            assert not message.HasField("transport_socket")
            assert message.type == (message.EDS if message.HasField("eds_cluster_config") else message.LOGICAL_DNS)
            assert sum(len(g.lb_endpoints) for g in message.load_assignment.endpoints) in (0, 1)
        elif resource.type_url == ENDPOINTS:
            # gRPC refuses gaps between priorities, and a locality that comes twice in one.
            assert {g.priority for g in message.endpoints} == set(range(1 + max(g.priority for g in message.endpoints)))
            assert len({(g.priority, *place(g.locality)) for g in message.endpoints}) == len(message.endpoints)
            assert all(g.HasField("locality") and g.load_balancing_weight.value >= 1 for g in message.endpoints)
        else:
            (host,) = message.virtual_hosts
            weighted = host.routes[-1].route.weighted_clusters
            assert list(host.domains) == ["*"]
            assert sum(c.weight.value for c in weighted.clusters) == weighted.total_weight.value == FULL_SHARE


def test_weights_that_do_not_sum_to_the_total_are_a_problem() -> None:
    routes = compile_proxyless(IRIS)[1]
    message = decoded(routes)
    message.virtual_hosts[0].routes[0].route.weighted_clusters.total_weight.value = 100
    with pytest.raises(Error, match="the weights sum to 10000, but total_weight is 100"):
        check([Resource.of(ROUTES, "iris", message.SerializeToString())])


def test_a_listener_is_for_one_kind_of_client() -> None:
    message = decoded(compile_proxyless(IRIS)[0])
    message.address.CopyFrom(socket_address("10.0.0.1", 80))
    with pytest.raises(Error, match="must not be set beside an address"):
        check([Resource.of(LISTENER, "iris", message.SerializeToString())])
