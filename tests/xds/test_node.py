"""The client's identity."""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Identified
from controlplane.xds.sotw import SotwStream
from tests.xds.rig import ask


def test_the_identity_is_read_from_the_node() -> None:
    node = base_pb2.Node(id="n", cluster="c", user_agent_name="envoy")
    node.metadata.update({"zone": "a", "weights": [1, 2]})
    node.user_agent_build_version.version.major_number = 1
    node.user_agent_build_version.version.minor_number = 40
    expected = Identified("n", "c", {"zone": "a", "weights": [1.0, 2.0]}, "envoy 1.40.0")
    assert DeltaStream().receive(ask(CLUSTER, node=node)) == [expected]
    assert SotwStream().receive(discovery_pb2.DiscoveryRequest(type_url=CLUSTER, node=node)) == [expected]
    old = base_pb2.Node(id="n", user_agent_name="gRPC", user_agent_version="1.85")
    assert DeltaStream().receive(ask(CLUSTER, node=old)) == [Identified("n", "", {}, "gRPC 1.85")]


def test_metadata_may_be_nan() -> None:
    node = base_pb2.Node(id="n")
    node.metadata.fields["x"].number_value = float("nan")
    node.metadata.fields["y"].null_value = 0
    node.metadata.fields["z"]
    (event,) = DeltaStream().receive(ask(CLUSTER, node=node))
    assert isinstance(event, Identified)
    assert str(sorted(event.metadata.items())) == "[('x', nan), ('y', None), ('z', None)]"
