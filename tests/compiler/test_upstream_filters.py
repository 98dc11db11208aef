"""Upstream filters: in the cluster of a version, in an order that never changes."""

from __future__ import annotations

from controlplane.compiler.clusters import compile_cluster, compile_mirror
from controlplane.compiler.decode import decoded, unpack
from controlplane.compiler.routes import compile_routes
from controlplane.compiler.upstream_filters import header_options, upstream_filters
from controlplane.domain import Credential, Endpoint, Mirror, Model, PathRewrite, RequestHeaders, Version
from controlplane.envoy_types import SECRET
from controlplane.snapshot import Resource

HERE = (Endpoint("10.0.0.1", 80),)
ALL = Version(
    "green",
    HERE,
    host="a.b",
    rewrite=PathRewrite("/a", "/b"),
    request_headers=RequestHeaders({"x-a": "5 %"}, ("cookie",)),
    credential=Credential("key"),
)


def filters_of(resource: Resource) -> list[str]:
    (options,) = decoded(resource).typed_extension_protocol_options.values()
    return [f.name.rpartition(".")[2] for f in unpack(options).http_filters]


def test_only_a_version_that_changes_requests_has_filters() -> None:
    assert upstream_filters(Version("blue", HERE, host="a.b")) == []
    (cluster,) = compile_cluster("iris", ALL)
    assert filters_of(cluster) == ["header_mutation", "lua", "credential_injector", "upstream_codec"]


def test_copies_get_the_changes_of_the_version_that_they_go_to() -> None:
    model = Model("iris", ("edge",), (Version("blue", HERE), ALL), {"blue": 10_000}, mirror=Mirror("green"))
    (mirror,) = compile_mirror(model)
    own = ["header_mutation", "lua", "credential_injector", "upstream_codec"]
    assert filters_of(mirror) == ["buffer", "header_mutation", *own]
    assert (SECRET, "key/Bearer") in mirror.refs
    (host,) = decoded(compile_routes(model)).virtual_hosts
    (route,) = host.routes
    assert [p.host_rewrite_literal for p in host.request_mirror_policies] == ["a.b"]
    assert [c.host_rewrite_literal for c in route.route.weighted_clusters.clusters] == [""]


def test_a_percent_sign_is_no_command_of_envoy() -> None:
    assert [(o.header.key, o.header.value) for o in header_options(ALL.request_headers)] == [("x-a", "5 %%")]
    assert header_options(None) == []
