"""JSON Merge Patch of Envoy's messages."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter

from controlplane.compiler import Compiler, audiences
from controlplane.compiler.decode import decoded, unpack
from controlplane.compiler.merge_patch import MergeError, merged
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from tests.compiler.cases import CASES, read_state, widest
from tests.compiler.values import everything

LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"


@pytest.mark.parametrize("case", CASES)
def test_an_empty_patch_changes_no_byte_of_any_resource(case: str) -> None:
    state = read_state(case)
    for audience in widest(audiences(state)):
        for resource in everything(Compiler().compile(state, NO_LIVE_ENDPOINTS, audience, 1)):
            assert merged(decoded(resource), {}).SerializeToString(deterministic=True) == resource.body


def test_objects_are_merged_lists_replaced_and_null_removes() -> None:
    cluster = Cluster(name="a", connect_timeout={"seconds": 5}, alt_stat_name="b")
    cluster.health_checks.add(timeout={"seconds": 1})
    cluster.circuit_breakers.thresholds.add()
    patch = {
        "connectTimeout": "0.5s",
        "alt_stat_name": None,
        "healthChecks": [{"timeout": "2s"}, {"timeout": "3s"}],
        "metadata": {"filter_metadata": {"x": {"y": 1}}},
    }
    result = merged(cluster, patch)
    assert (result.name, result.connect_timeout.ToMilliseconds(), result.alt_stat_name) == ("a", 500, "")
    assert [h.timeout.seconds for h in result.health_checks] == [2, 3]
    assert result.circuit_breakers == cluster.circuit_breakers
    assert result.metadata.filter_metadata["x"]["y"] == 1


def test_a_field_can_be_set_to_its_default() -> None:
    host = VirtualHost(name="a", include_request_attempt_count=True)
    assert not merged(host, {"include_request_attempt_count": False}).include_request_attempt_count


def test_an_any_is_merged_if_its_type_stays_and_replaced_if_not() -> None:
    lua = {"@type": LUA, "default_source_code": {"inline_string": "a"}, "stat_prefix": "s"}
    http_filter = merged(HttpFilter(name="x"), {"typed_config": lua})
    kept = merged(http_filter, {"typed_config": {"defaultSourceCode": {"inlineString": "b"}}})
    assert (unpack(kept.typed_config).default_source_code.inline_string, unpack(kept.typed_config).stat_prefix) == ("b", "s")
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    replaced = merged(http_filter, {"typed_config": {"@type": router, "start_child_span": True}})
    assert unpack(replaced.typed_config).start_child_span


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        ({"nothing": 1}, 'no field named "nothing"'),
        ({"route": {"timeout": "soon"}}, "timeout"),
        ({"match": 1}, "match"),
        ({"route": {"retry_policy": {"retry_host_predicate": 1}}}, "retry_host_predicate"),
        ({"typed_per_filter_config": {"x": {"@type": "type.googleapis.com/envoy.nothing.v3.X"}}}, "is not known"),
        ({"typed_per_filter_config": {"x": {"@type": "type.googleapis.com/os.path.X"}}}, "is not known"),
        ({"typed_per_filter_config": {"x": {"@type": "type.googleapis.com/envoy.config.route.v3.Nothing"}}}, "is not known"),
        ({"typed_per_filter_config": {"x": {"a": 1}}}, "is not known"),
        ({"typed_per_filter_config": {"x": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct"}}}, "can't be checked"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(patch: dict[str, Any], text: str) -> None:
    with pytest.raises(MergeError, match=text):
        merged(Route(), patch)


def test_deep_patches_are_refused() -> None:
    patch: dict[str, Any] = {}
    for _ in range(100):
        patch = {"a": patch}
    with pytest.raises(MergeError, match="nested deeper"):
        merged(Route(), patch)


def test_the_bytes_are_the_same_in_every_process() -> None:
    program = """
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from controlplane.compiler.merge_patch import merged
jwt = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
providers = {f"p{i}": {"issuer": str(i), "local_jwks": {"filename": "/jwks"}} for i in range(20)}
result = merged(HttpFilter(name="x"), {"typed_config": {"@type": jwt, "providers": providers}})
print(result.SerializeToString(deterministic=True).hex())
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
