"""The client's identity."""

from __future__ import annotations

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER
from controlplane.errors import Error
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Identified
from controlplane.xds.node import check_metadata
from controlplane.xds.sotw import SotwStream
from tests.xds.rig import ask


def test_the_identity_is_read_from_the_node() -> None:
    node = base_pb2.Node(id="n", cluster="c", user_agent_name="envoy")
    node.metadata.update({"zone": "a", "weight": 2, "canary": True, "rows": ["a", "b"], "weights": [1, 2], "deep": {"a": "b"}})
    node.user_agent_build_version.version.major_number = 1
    node.user_agent_build_version.version.minor_number = 40
    expected = Identified("n", "c", {"zone": "a", "weight": 2.0, "canary": True, "rows": ["a", "b"]}, "envoy 1.40.0")
    assert DeltaStream().receive(ask(CLUSTER, node=node)) == [expected]
    assert SotwStream().receive(discovery_pb2.DiscoveryRequest(type_url=CLUSTER, node=node)) == [expected]
    old = base_pb2.Node(id="n", user_agent_name="gRPC", user_agent_version="1.85")
    assert DeltaStream().receive(ask(CLUSTER, node=old)) == [Identified("n", "", {}, "gRPC 1.85")]


def test_metadata_is_bounded_and_nested_values_do_not_count() -> None:
    node = base_pb2.Node(id="n")
    node.metadata.update({"zone": "a" * 1_000, "rows": ["b" * 1_000] * 3, "proxy": {"config": "c" * 50_000}})
    check_metadata(base_pb2.Node(metadata={"proxy": node.metadata["proxy"]}).metadata)
    node.metadata.fields["rows"].list_value.values.pop()
    check_metadata(node.metadata)
    node.metadata.update({"long": "d" * 2_000})
    with pytest.raises(Error, match=r"^node\.metadata\.rows: takes 2020 of 5028 bytes"):
        check_metadata(node.metadata)


def test_a_number_may_be_nan_and_null_is_dropped() -> None:
    node = base_pb2.Node(id="n")
    node.metadata.fields["x"].number_value = float("nan")
    node.metadata.fields["y"].null_value = 0
    node.metadata.fields["z"]
    (event,) = DeltaStream().receive(ask(CLUSTER, node=node))
    assert isinstance(event, Identified)
    assert str(sorted(event.metadata.items())) == "[('x', nan)]"
