"""Bootstraps: the files in envoy/ are equal to those that the code returns, and Envoy's protos know every field."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import pytest
import yaml
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2  # noqa: F401
from envoy.extensions.resource_monitors.fixed_heap.v3 import fixed_heap_pb2
from google.protobuf import json_format

from controlplane.compiler.bootstrap import grpc_bootstrap, node_bootstrap
from controlplane.compiler.constraints import Constraints
from controlplane.domain import Locality

ENVOY = Path(__file__).parents[2] / "envoy"


def parsed(bootstrap: dict[str, object]) -> bootstrap_pb2.Bootstrap:
    """The bootstrap as a message; an unknown field is an error. It breaks no constraint."""
    message = json_format.ParseDict(bootstrap, bootstrap_pb2.Bootstrap())
    assert list(Constraints().problems(message)) == []
    return message


@pytest.mark.parametrize("variant", ["delta", "sotw"])
def test_the_files_are_equal_to_what_the_code_returns(variant: Literal["delta", "sotw"]) -> None:
    assert yaml.safe_load((ENVOY / f"{variant}.yaml").read_text()) == node_bootstrap("envoy-1", variant=variant)


def test_the_folder_of_the_files_has_no_python() -> None:
    """An __init__.py there would hide the installed `envoy` package."""
    assert sorted(p.suffix for p in ENVOY.iterdir()) == [".md", ".yaml", ".yaml"]


def test_a_bootstrap_has_the_node_and_the_addresses_that_it_is_called_with() -> None:
    bootstrap = node_bootstrap(
        "gw-1", "edge", xds_host="cp.example", xds_port=1, variant="sotw", admin_host="::1", admin_port=0, metadata={"a": "b"}
    )
    message = parsed(bootstrap)
    assert (message.node.id, message.node.cluster, dict(message.node.metadata)) == ("gw-1", "edge", {"a": "b"})
    assert message.dynamic_resources.ads_config.api_type == message.dynamic_resources.ads_config.GRPC
    [cluster] = message.static_resources.clusters
    assert cluster.type == cluster.STRICT_DNS
    socket = cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address
    assert (socket.address, socket.port_value) == ("cp.example", 1)
    assert (message.admin.address.socket_address.address, message.admin.address.socket_address.port_value) == ("::1", 0)


def test_load_reports_can_be_turned_off() -> None:
    assert parsed(node_bootstrap("gw-1")).cluster_manager.HasField("load_stats_config")
    assert not parsed(node_bootstrap("gw-1", load_reports=False)).HasField("cluster_manager")


def test_the_heap_is_bounded_unless_it_is_turned_off() -> None:
    overload = parsed(node_bootstrap("gw-1", max_memory=512)).overload_manager
    (heap,) = (m for m in overload.resource_monitors if m.name == "envoy.resource_monitors.fixed_heap")
    assert fixed_heap_pb2.FixedHeapConfig.FromString(heap.typed_config.value).max_heap_size_bytes == 512 << 20
    assert {t.name for a in (*overload.actions, *overload.loadshed_points) for t in a.triggers} == {heap.name}
    without = parsed(node_bootstrap("gw-1", max_memory=0)).overload_manager
    assert [m.name for m in without.resource_monitors] == ["envoy.resource_monitors.global_downstream_max_connections"]
    assert not without.actions


def test_a_grpc_client_has_a_bootstrap_of_its_own() -> None:
    bootstrap = grpc_bootstrap("app-1", xds_host="::1", xds_port=1, locality=Locality("eu", "eu-1"), metadata={"a": "b"})
    (server,) = cast(list[dict[str, object]], bootstrap["xds_servers"])
    assert server["server_uri"] == "[::1]:1"
    assert server["channel_creds"] == [{"type": "insecure"}]
    assert bootstrap["node"] == {
        "id": "app-1",
        "cluster": "turnout",
        "locality": {"region": "eu", "zone": "eu-1"},
        "metadata": {"a": "b"},
    }
    # grpc-js requires a locality, even if it is empty.
    assert grpc_bootstrap("app-1")["node"] == {"id": "app-1", "cluster": "turnout", "locality": {}}
