"""Patches, as compiled: what each target changes, and the errors that name the patch."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.decode import decoded, owner, unpack
from controlplane.compiler.routes import compile_routes
from controlplane.domain import Endpoint, Gateway, Mirror, Model, Patch, PatchTarget, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, LISTENER, ORDER, ROUTES, SECRET
from controlplane.errors import Code, Error
from controlplane.snapshot import Audience, Client, Snapshot
from tests.compiler.cases import check, read_state
from tests.compiler.values import everything, shared_types

LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
BLUE, GREEN = (Version(name, (Endpoint("10.0.0.1", port),)) for name, port in (("blue", 1), ("green", 2)))
IRIS = Model("iris", ("edge",), (BLUE, GREEN), {"blue": 10_000})


def patch(target: PatchTarget, form: Any, name: str = "p", **place: str) -> Patch:
    return Patch(name, target, json.dumps(form), **place)


def lua(name: str = "x", patch_name: str = "p", **place: str) -> Patch:
    form = {"name": name, "typed_config": {"@type": LUA, "default_source_code": {"inline_string": "--"}}}
    return patch(PatchTarget.HTTP_FILTER, form, patch_name, **place)


def snapshot(gateway: Gateway, model: Model = IRIS, client: Client = Client.ENVOY) -> Snapshot:
    state = State({"edge": gateway}, {"iris": model})
    compiled = Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience(("edge",), client), 1)
    check(everything(compiled), compiled)
    return compiled


def manager(gateway: Gateway) -> Any:
    (listener,) = snapshot(gateway).resources[LISTENER].values()
    return unpack(decoded(listener).filter_chains[0].filters[0].typed_config)


def test_a_filter_comes_to_its_place() -> None:
    own = [f.name for f in manager(Gateway("edge", 80)).http_filters]
    index = own.index("envoy.filters.http.grpc_web")
    for place, at in (({}, len(own) - 1), ({"before": own[index]}, index), ({"after": own[index]}, index + 1)):
        names = [f.name for f in manager(Gateway("edge", 80, patches=(lua(**place),))).http_filters]
        assert names == [*own[:at], "x", *own[at:]]


def test_filters_of_several_patches_are_in_the_order_of_the_patches() -> None:
    names = [f.name for f in manager(Gateway("edge", 80, patches=(lua("x", "a"), lua("y", "b")))).http_filters]
    assert names[-3:] == ["x", "y", "envoy.filters.http.router"]


def test_an_unknown_place_names_the_filters_that_there_are() -> None:
    with pytest.raises(Error, match=r"there is no filter 'nothing'; there are: turnout.websocket_key, ") as raised:
        snapshot(Gateway("edge", 80, patches=(lua(before="nothing"),)))
    assert (raised.value.code, raised.value.reason) == (Code.INVALID_ARGUMENT, "PATCH_REFUSED")
    assert [v.field for v in raised.value.violations] == ["gateways/edge.patches[0].http_filter"]


def test_a_listener_a_chain_and_a_manager_are_merged() -> None:
    patches = (
        patch(PatchTarget.LISTENER, {"tcp_backlog_size": 7}, "a"),
        patch(PatchTarget.FILTER_CHAIN, {"transport_socket_connect_timeout": "3s"}, "b"),
        patch(PatchTarget.CONNECTION_MANAGER, {"server_name": "edge", "http2_protocol_options": {"allow_connect": None}}, "c"),
    )
    gateway = Gateway("edge", 80, patches=patches)
    (listener,) = map(decoded, snapshot(gateway).resources[LISTENER].values())
    assert listener.tcp_backlog_size.value == 7
    assert listener.filter_chains[0].transport_socket_connect_timeout.seconds == 3
    assert manager(gateway).server_name == "edge"
    assert manager(gateway).http2_protocol_options.max_concurrent_streams.value == 1000
    assert not manager(gateway).http2_protocol_options.allow_connect


ADDED = patch(PatchTarget.ADD_CLUSTER, {"type": "STRICT_DNS", "load_assignment": {"endpoints": [
    {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "a.svc", "port_value": 1}}}}]}
]}}, "authz")  # fmt: skip
CALLS = patch(
    PatchTarget.HTTP_FILTER,
    {
        "name": "x",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "grpc_service": {"envoy_grpc": {"cluster_name": "gateways/edge/patches/authz"}},
        },
    },
    "check",
)


def test_an_added_cluster_is_sent_before_the_listener_that_names_it() -> None:
    compiled = snapshot(Gateway("edge", 80, patches=(CALLS, ADDED)))
    cluster = compiled.resources[CLUSTER]["gateways/edge/patches/authz"]
    assert owner(cluster) == "gateways/edge"
    (listener,) = compiled.resources[LISTENER].values()
    assert (CLUSTER, cluster.name) in listener.refs


def test_a_virtual_host_and_every_route_are_merged() -> None:
    header = [{"header": {"key": "x-a", "value": "b"}}]
    patches = (
        patch(PatchTarget.VIRTUAL_HOST, {"include_request_attempt_count": True}, "a"),
        patch(PatchTarget.ROUTE, {"response_headers_to_add": header}, "b"),
    )
    routes = compile_routes(replace(IRIS, patches=patches, preview_header="x-v"))
    (host,) = decoded(routes).virtual_hosts
    assert host.include_request_attempt_count
    assert [r.response_headers_to_add[0].header.key for r in host.routes] == ["x-a"] * 3


def test_every_cluster_of_a_version_is_merged() -> None:
    blue = replace(BLUE, patches=(patch(PatchTarget.CLUSTER, {"track_cluster_stats": {"request_response_sizes": True}}),))
    green = replace(GREEN, fallback=("blue",))
    mirrored = replace(IRIS, versions=(blue, GREEN), mirror=Mirror("blue"), split={"green": 10_000})
    with_fallback = replace(IRIS, versions=(blue, green))
    for model, names in (
        (mirrored, {"iris/blue", "iris/blue/mirror"}),
        (with_fallback, {"iris/blue", "iris/green/fallback/blue"}),
    ):
        clusters = snapshot(Gateway("edge", 80), model).resources[CLUSTER].values()
        assert {c.name for c in clusters if decoded(c).track_cluster_stats.request_response_sizes} == names


def test_a_version_without_endpoints_is_checked_too() -> None:
    green = Version("green", patches=(patch(PatchTarget.CLUSTER, {"nothing": 1}),))
    with pytest.raises(Error) as raised:
        snapshot(Gateway("edge", 80), replace(IRIS, versions=(BLUE, green)))
    assert [v.field for v in raised.value.violations] == ["models/iris.versions[1].patches[0].cluster"]


def test_a_switch_of_a_patched_model_changes_one_small_route_and_nothing_else() -> None:
    added = {"response_headers_to_add": [{"header": {"key": "x-a", "value": "b" * 200}}]}
    model = replace(IRIS, patches=(patch(PatchTarget.ROUTE, added),))
    gateway = Gateway("edge", 80, patches=(CALLS, ADDED))
    compiler = Compiler()
    before = compiler.compile(State({"edge": gateway}, {"iris": model}), NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)
    for split in ({"green": 10_000}, {"blue": 1, "green": 9_999}):
        state = State({"edge": gateway}, {"iris": replace(model, split=split)})
        after = compiler.compile(state, NO_LIVE_ENDPOINTS, Audience(("edge",)), 2, before)
        assert shared_types(before, after) == set(ORDER) - {ROUTES}
        assert len(after.resources[ROUTES]["iris"].body) <= 1_024


def test_routes_above_1_kb_are_refused_whatever_the_split() -> None:
    def refused(size: int, split: dict[str, int], model: Model = IRIS) -> bool:
        added = {"response_headers_to_add": [{"header": {"key": "x-a", "value": "b" * size}}]}
        try:
            compile_routes(replace(model, patches=(patch(PatchTarget.VIRTUAL_HOST, added),), split=split))
        except Error as error:
            return "each switch sends" in error.message
        return False

    splits: list[dict[str, int]] = [{"blue": 10_000}, {"green": 10_000}, {"blue": 5_000, "green": 5_000}]
    sizes = range(700, 1_000)
    assert len({tuple(refused(size, split) for size in sizes) for split in splits}) == 1
    assert not refused(700, splits[0])
    assert refused(999, splits[0])
    # A model with gRPC ports has a second route for each.
    versions = tuple(replace(v, endpoints=tuple(replace(e, grpc_port=90) for e in v.endpoints)) for v in IRIS.versions)
    assert not refused(999, splits[0], replace(IRIS, versions=versions))
    assert refused(2_000, splits[0], replace(IRIS, versions=versions))


def test_clients_without_envoy_get_no_patches() -> None:
    header = [{"header": {"key": "x-a", "value": "b"}}]
    model = replace(IRIS, patches=(patch(PatchTarget.ROUTE, {"response_headers_to_add": header}),))
    gateway, grpc = Gateway("edge", 80), Client.GRPC
    assert everything(snapshot(gateway, model, grpc)) == everything(snapshot(gateway, IRIS, grpc))


def test_a_patch_gets_a_secret_that_its_gateway_allows_and_no_other_node_gets_it() -> None:
    state = read_state("secrets")
    label = next(iter(state.secrets))
    sds = {"name": label, "sds_config": {"ads": {}, "resource_api_version": "V3"}}
    generic = {"@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic", "credential": sds}
    injector = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": generic},
    }
    named = patch(PatchTarget.HTTP_FILTER, {"name": "x", "typed_config": injector})

    def secrets(gateway: Gateway) -> set[str]:
        served = State({"edge": gateway}, {}, state.secrets)
        return set(Compiler().compile(served, NO_LIVE_ENDPOINTS, Audience(("edge",)), 1).resources[SECRET])

    with pytest.raises(Error, match=f"names the Secret '{label}', to which the object is not entitled"):
        secrets(Gateway("edge", 80, patches=(named,)))
    assert secrets(Gateway("edge", 80, patches=(named,), patch_secrets=(label,))) == {label}
    assert secrets(Gateway("edge", 80, patch_secrets=(label,))) == set()
