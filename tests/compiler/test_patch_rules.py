"""The rules that patches keep: a refusal for each of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controlplane.compiler import Compiler, patch_rules
from controlplane.compiler.clusters import compile_cluster
from controlplane.compiler.decode import decoded
from controlplane.compiler.listeners import compile_listener
from controlplane.compiler.merge_patch import merged
from controlplane.compiler.routes import compile_routes
from controlplane.domain import Credential, Endpoint, Gateway, GatewayTls, Model, Patch, PatchTarget, Sticky, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.errors import Error
from controlplane.snapshot import Audience

TYPES = "type.googleapis.com/envoy.extensions"
ROUTER = {"@type": f"{TYPES}.filters.http.router.v3.Router"}
ADS = {"ads": {}, "resource_api_version": "V3"}
EDGE = Gateway("edge", 80, tls=GatewayTls("cert"))
BLUE, GREEN = (
    Version(name, (Endpoint("10.0.0.1", i),), credential=Credential("key"), host="h.svc")
    for i, name in enumerate(("blue", "green"), 1)
)
IRIS = Model("iris", ("edge",), (BLUE, GREEN), {"blue": 5_000, "green": 5_000}, sticky=Sticky(cookie="uid"))


def sds(name: str, source: Any = ADS) -> dict[str, Any]:
    return {"name": name, "sds_config": source}


def tls(name: str) -> dict[str, Any]:
    context = {"tls_certificate_sds_secret_configs": [sds(name)]}
    return {"@type": f"{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": context}


def http_filter(kind: str, **config: Any) -> dict[str, Any]:
    return {"name": "x", "typed_config": {"@type": f"{TYPES}.filters.http.{kind}", **config}}


EXT_AUTHZ, LUA = "ext_authz.v3.ExtAuthz", "lua.v3.Lua"
OAUTH2 = "oauth2.v3.OAuth2"
UPSTREAM = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

OF_GATEWAYS: list[tuple[PatchTarget, Any, str]] = [
    # Names and types.
    (PatchTarget.LISTENER, {"name": "other"}, "name: may not change"),
    (PatchTarget.LISTENER, {"address": {"socket_address": {"address": "10.0.0.9"}}}, "address: may not change"),
    (PatchTarget.LISTENER, {"additional_addresses": [{}]}, "additional_addresses: may not change"),
    (PatchTarget.LISTENER, {"api_listener": {"api_listener": ROUTER}}, "api_listener: may not change"),
    (PatchTarget.LISTENER, {"filterChains": []}, "use a patch of `filter_chain`"),
    (PatchTarget.LISTENER, {"default_filter_chain": {}}, "default_filter_chain: may not change"),
    (PatchTarget.FILTER_CHAIN, {"filters": []}, "filters: may not change"),
    (PatchTarget.FILTER_CHAIN, {"filter_chain_match": {"server_names": ["a"]}}, "filter_chain_match: may not change"),
    (PatchTarget.FILTER_CHAIN, {"transport_socket": None}, "transport_socket: its name and type may not change"),
    (PatchTarget.CONNECTION_MANAGER, {"stat_prefix": "other"}, "stat_prefix: may not change"),
    # How requests find their routes.
    (PatchTarget.CONNECTION_MANAGER, {"scoped_routes": {"name": "other"}}, "scoped_routes: may not change"),
    (
        PatchTarget.CONNECTION_MANAGER,
        {"scoped_routes": None, "rds": {"route_config_name": "x", "config_source": ADS}},
        "may not change",
    ),
    (
        PatchTarget.CONNECTION_MANAGER,
        {"scoped_routes": {"rds_config_source": {"ads": None, "path": "/x"}}},
        "scoped_routes: may not change",
    ),
    (PatchTarget.CONNECTION_MANAGER, {"early_header_mutation_extensions": []}, "must stay the first"),
    (PatchTarget.CONNECTION_MANAGER, {"http_filters": []}, "'turnout.websocket_key' may not be changed, removed or moved"),
    (PatchTarget.HTTP_FILTER, {"name": "envoy.filters.http.router", "typed_config": ROUTER}, "there are two filters"),
    (PatchTarget.HTTP_FILTER, {"name": "x"}, "filter.typed_config: is required"),
    # Sources of configuration.
    (
        PatchTarget.HTTP_FILTER,
        {"name": "x", "config_discovery": {"config_source": ADS, "type_urls": ["a"]}},
        "typed_config: is required",
    ),
    # Clusters.
    (
        PatchTarget.HTTP_FILTER,
        http_filter(EXT_AUTHZ, grpc_service={"envoy_grpc": {"cluster_name": "iris/blue"}}),
        "names the cluster 'iris/blue', which could be removed",
    ),
    (
        PatchTarget.HTTP_FILTER,
        http_filter(EXT_AUTHZ, http_service={"server_uri": {"uri": "x", "cluster": "any", "timeout": "1s"}}),
        "names the cluster 'any'",
    ),
    (PatchTarget.ADD_CLUSTER, {"name": "iris/blue"}, "name: must be 'gateways/edge/patches/p', or left out"),
    (PatchTarget.ADD_CLUSTER, {"type": "EDS", "eds_cluster_config": {"eds_config": ADS}}, "type: must be STATIC"),
    (PatchTarget.ADD_CLUSTER, {"cluster_type": {"name": "envoy.clusters.aggregate"}}, "type: must be STATIC"),
    (
        PatchTarget.ADD_CLUSTER,
        {"transport_socket": {"name": "tls", "typed_config": tls("other")}},
        "names the Secret 'other', to which the object is not entitled. It may name these, by their labels: none",
    ),
    # Secrets.
    (
        PatchTarget.FILTER_CHAIN,
        {"transport_socket": {"typed_config": {"common_tls_context": {"tls_certificate_sds_secret_configs": [sds("other")]}}}},
        "the Secret 'cert' may not be removed",
    ),
    (
        PatchTarget.HTTP_FILTER,
        http_filter(OAUTH2, config={"credentials": {"token_secret": sds("other")}}),
        "names the Secret 'other', to which the object is not entitled",
    ),
    (
        PatchTarget.HTTP_FILTER,
        http_filter(OAUTH2, config={"credentials": {"token_secret": sds("cert", {"path": "/x"})}}),
        r"sds_config: must be \{ads",
    ),
    (
        PatchTarget.FILTER_CHAIN,
        {
            "transport_socket": {
                "typed_config": {"common_tls_context": {"tls_certificates": [{"private_key": {"inline_string": "PEM"}}]}}
            }
        },
        "private_key: is sensitive",
    ),
]
OF_MODELS: list[tuple[PatchTarget, Any, str]] = [
    (PatchTarget.VIRTUAL_HOST, {"name": "other"}, "name: may not change"),
    (PatchTarget.VIRTUAL_HOST, {"domains": ["a"]}, "domains: may not change"),
    (PatchTarget.VIRTUAL_HOST, {"routes": []}, "use a patch of `route`"),
    (PatchTarget.VIRTUAL_HOST, {"metadata": {"filter_metadata": {"turnout": {"revision": 1}}}}, "may not change"),
    (PatchTarget.VIRTUAL_HOST, {"request_mirror_policies": [{"cluster": "iris/blue"}]}, "request_mirror_policies: may not"),
    (PatchTarget.ROUTE, {"match": {"prefix": "/x"}}, "match: may not change"),
    (PatchTarget.ROUTE, {"route": None, "direct_response": {"status": 200}}, "the kind of its action may not change"),
    (PatchTarget.ROUTE, {"route": {"weighted_clusters": None, "cluster": "iris/blue"}}, "cluster: may not change"),
    (PatchTarget.ROUTE, {"route": {"weighted_clusters": None, "cluster_header": "x"}}, "cluster_header: may not change"),
    (
        PatchTarget.ROUTE,
        {"route": {"weighted_clusters": {"clusters": [{"name": "iris/blue", "weight": 10_000}]}}},
        "names and weights may not change",
    ),
    (
        PatchTarget.ROUTE,
        {"route": {"weighted_clusters": {"clusters": [{"name": "x", "weight": 5_000}, {"name": "y", "weight": 5_000}]}}},
        "names and weights may not change",
    ),
    (
        PatchTarget.ROUTE,
        {"route": {"weighted_clusters": {"use_hash_policy": None, "header_name": "x-choose"}}},
        "use_hash_policy: may not change",
    ),
    (PatchTarget.ROUTE, {"route": {"weighted_clusters": {"use_hash_policy": False}}}, "use_hash_policy: may not change"),
    (PatchTarget.ROUTE, {"route": {"hash_policy": []}}, "hash_policy: may not change"),
    (
        PatchTarget.ROUTE,
        {"route": {"request_mirror_policies": [{"cluster": "iris/blue"}]}},
        "request_mirror_policies: may not",
    ),
]
OF_VERSIONS: list[tuple[PatchTarget, Any, str]] = [
    (PatchTarget.CLUSTER, {"name": "other"}, "name: may not change"),
    (PatchTarget.CLUSTER, {"type": "STATIC"}, "type: may not change"),
    (
        PatchTarget.CLUSTER,
        {"eds_cluster_config": {"eds_config": {"ads": None, "path": "/x"}}},
        "eds_cluster_config: may not change",
    ),
    (PatchTarget.CLUSTER, {"load_assignment": {"cluster_name": "x"}}, "load_assignment: may not change"),
    (PatchTarget.CLUSTER, {"type": None, "cluster_type": {"name": "envoy.clusters.aggregate"}}, "may not change"),
    (PatchTarget.CLUSTER, {"metadata": {"filter_metadata": {"turnout": {"model": "x"}}}}, "may not change"),
    (PatchTarget.CLUSTER, {"lrs_server": {"self": {}}}, "a source of configuration may not be added"),
    (
        PatchTarget.CLUSTER,
        {"transport_socket": {"name": "tls", "typed_config": tls("cert")}},
        "names the Secret 'cert', to which the object is not entitled",
    ),
    (
        PatchTarget.CLUSTER,
        {"typed_extension_protocol_options": {UPSTREAM: {"http_filters": []}}},
        "'envoy.filters.http.credential_injector' may not be changed, removed or moved",
    ),
]


@pytest.mark.parametrize(
    ("target", "form", "text"), [*OF_GATEWAYS, *OF_MODELS, *OF_VERSIONS], ids=lambda v: v if isinstance(v, str) else None
)
def test_a_patch_that_breaks_a_rule_is_refused(target: PatchTarget, form: Any, text: str) -> None:
    patches = (Patch("p", target, json.dumps(form)),)
    gateway, model = EDGE, IRIS
    if (target, form, text) in OF_GATEWAYS:
        gateway = replace(EDGE, patches=patches)
    elif (target, form, text) in OF_MODELS:
        model = replace(IRIS, patches=patches)
    else:
        model = replace(IRIS, versions=(replace(BLUE, patches=patches), GREEN))
    state = State({"edge": gateway}, {"iris": model})
    with pytest.raises(Error, match=text) as raised:
        Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)
    assert raised.value.reason == "PATCH_REFUSED"


def test_a_version_may_name_its_own_secrets() -> None:
    injector = {"@type": f"{TYPES}.http.injected_credentials.generic.v3.Generic", "credential": sds("key")}
    form = {"upstream_config": {"name": "x", "typed_config": injector}}
    version = replace(BLUE, patches=(Patch("p", PatchTarget.CLUSTER, json.dumps(form)),))
    (cluster,) = map(decoded, compile_cluster("iris", version))
    assert cluster.upstream_config.name == "x"


def test_upstream_filters_end_with_the_codec() -> None:
    before = decoded(_cluster(replace(BLUE, credential=None)))
    filters = [http_filter(LUA, default_source_code={"inline_string": "--"})]
    after = merged(before, {"typed_extension_protocol_options": {UPSTREAM: {"http_filters": filters}}})
    with pytest.raises(patch_rules.RuleError, match="upstream_codec"):
        patch_rules.check_cluster(before, after, patch_rules.Names())
    codec = {"name": "c", "typed_config": {"@type": f"{TYPES}.filters.http.upstream_codec.v3.UpstreamCodec"}}
    after = merged(before, {"typed_extension_protocol_options": {UPSTREAM: {"http_filters": [*filters, codec]}}})
    patch_rules.check_cluster(before, after, patch_rules.Names())


def _cluster(version: Version) -> Any:
    return compile_cluster("iris", version)[0]


def test_routes_keep_what_turnout_removes_from_requests() -> None:
    before = decoded(compile_routes(IRIS))
    for form, text in (
        ({"request_headers_to_remove": []}, "Turnout's own must stay"),
        ({"vhds": {"config_source": ADS}}, "vhds: may not change"),
        ({"validate_clusters": True}, "validate_clusters: may not change"),
        ({"virtual_hosts": []}, "their number may not change"),
    ):
        with pytest.raises(patch_rules.RuleError, match=text):
            patch_rules.check_routes(before, merged(before, form), patch_rules.Names())


def test_a_listener_that_a_program_changed_is_checked_in_the_same_way() -> None:
    listener = decoded(compile_listener(EDGE))
    for path, text in (("filters", "filters: may not change"), ("chains", "their number may not change")):
        changed = type(listener)()
        changed.CopyFrom(listener)
        if path == "filters":
            changed.filter_chains[0].filters.add(name="x")
        else:
            changed.filter_chains.add()
        with pytest.raises(patch_rules.RuleError, match=text):
            patch_rules.check_listener(listener, changed, patch_rules.Names())
