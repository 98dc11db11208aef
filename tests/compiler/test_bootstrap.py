"""Bootstraps: the files in envoy/ are what the code makes, and both are what Envoy's protos know."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import yaml
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2  # noqa: F401
from google.protobuf import json_format

from controlplane.compiler import Compiler, audiences
from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.compiler.constraints import Constraints
from controlplane.compiler.decode import unpack
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from tests.compiler.cases import CASES, of_envoys, read_state

ENVOY = Path(__file__).parents[2] / "envoy"


def parsed(bootstrap: dict[str, object]) -> bootstrap_pb2.Bootstrap:
    """The bootstrap as a message; an unknown field is an error. It breaks no constraint."""
    message = json_format.ParseDict(bootstrap, bootstrap_pb2.Bootstrap())
    assert list(Constraints().problems(message)) == []
    return message


@pytest.mark.parametrize("variant", ["delta", "sotw"])
def test_the_files_are_what_the_code_makes(variant: Literal["delta", "sotw"]) -> None:
    assert yaml.safe_load((ENVOY / f"{variant}.yaml").read_text()) == node_bootstrap("envoy-1", variant=variant)


def test_no_python_beside_the_bootstraps() -> None:
    """An __init__.py there would hide the installed `envoy` package."""
    assert sorted(p.suffix for p in ENVOY.iterdir()) == [".md", ".yaml", ".yaml"]


def test_a_node_says_who_it_is_and_where_it_is_told() -> None:
    made = node_bootstrap(
        "gw-1", "edge", xds_host="cp.example", xds_port=1, variant="sotw", admin_host="::1", admin_port=0, metadata={"a": "b"}
    )
    message = parsed(made)
    assert (message.node.id, message.node.cluster, dict(message.node.metadata)) == ("gw-1", "edge", {"a": "b"})
    assert message.dynamic_resources.ads_config.api_type == message.dynamic_resources.ads_config.GRPC
    [cluster] = message.static_resources.clusters
    assert cluster.type == cluster.STRICT_DNS
    socket = cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address
    assert (socket.address, socket.port_value) == ("cp.example", 1)
    assert (message.admin.address.socket_address.address, message.admin.address.socket_address.port_value) == ("::1", 0)


@pytest.mark.parametrize("case", CASES)
def test_static_bootstraps_ask_for_nothing(case: str) -> None:
    state = read_state(case)
    for a in of_envoys(audiences(state)):
        message = parsed(static_bootstrap(Compiler().compile(state, NO_LIVE_ENDPOINTS, a, 1)))
        assert not message.HasField("dynamic_resources")
        assert "ads {" not in str(message)
        types = {c.name: c.type for c in message.static_resources.clusters}
        named = {f"{m.name}/{v.name}" for m in state.models.values() for v in m.versions if v.has_dns_endpoints}
        assert types == {
            c.name: c.STRICT_DNS if c.name.removesuffix("/mirror") in named else c.STATIC
            for c in message.static_resources.clusters
        }
        for listener in message.static_resources.listeners:
            manager = unpack(listener.filter_chains[0].filters[0].typed_config)
            assert "ads {" not in str(manager)
