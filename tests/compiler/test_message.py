"""The small messages."""

from __future__ import annotations

from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from hypothesis import given
from hypothesis import strategies as st

from controlplane.compiler.decode import unpack
from controlplane.compiler.message import duration, over_ads, packed, resource, socket_address
from controlplane.envoy_types import ENDPOINTS


@given(st.floats(0, 86_400))
def test_a_duration_is_rounded_to_the_microsecond(seconds: float) -> None:
    message = duration(seconds)
    assert message.nanos % 1_000 == 0
    assert abs(message.seconds + message.nanos / 1e9 - seconds) <= 0.5e-6 + 1e-9


def test_a_duration_near_the_next_second_carries_over() -> None:
    assert (duration(1.9999999).seconds, duration(1.9999999).nanos) == (2, 0)


def test_an_assignment_has_the_name_of_its_cluster() -> None:
    assignment = resource(ENDPOINTS, endpoint_pb2.ClusterLoadAssignment(cluster_name="iris/blue"))
    assert (assignment.type_url, assignment.name, assignment.refs) == (ENDPOINTS, "iris/blue", frozenset())


@given(st.permutations(["a", "b", "c", "d"]))
def test_maps_have_the_same_bytes_in_any_order(keys: list[str]) -> None:
    metadata = base_pb2.Metadata()
    for key in keys:
        metadata.filter_metadata[key].update({"k": key})
    ordered = base_pb2.Metadata()
    for key in sorted(keys):
        ordered.filter_metadata[key].update({"k": key})
    assert packed(metadata).value == packed(ordered).value
    assert unpack(packed(metadata)) == metadata


def test_everything_dynamic_comes_over_ads() -> None:
    assert over_ads().HasField("ads")
    address = socket_address("10.0.0.1", 80)
    assert address == address_pb2.Address(socket_address={"address": "10.0.0.1", "port_value": 80})
