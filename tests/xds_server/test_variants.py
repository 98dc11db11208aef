"""Parsing, counting and dividing the requests of both variants."""

from __future__ import annotations

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from controlplane.envoy_types import ENDPOINTS
from controlplane.xds.memo import MemoisedStream, TransitionMemo
from controlplane.xds_server.variants import DELTA, NAMES_PER_PART, SOTW, Variant


def delta(names: int, held: int = 0) -> discovery_pb2.DeltaDiscoveryRequest:
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=ENDPOINTS, response_nonce="7")
    request.node.id = "edge-1"
    request.resource_names_subscribe.extend(f"s{n}" for n in range(names))
    request.initial_resource_versions.update({f"h{n}": "1" for n in range(held)})
    return request


@pytest.mark.parametrize("variant", [DELTA, SOTW], ids=lambda v: v.name)
def test_a_message_that_is_no_request_is_an_error(variant: Variant) -> None:
    with pytest.raises(DecodeError):
        variant.parse(b"\xff\xff\xff")


@pytest.mark.parametrize("variant", [DELTA, SOTW], ids=lambda v: v.name)
def test_a_core_has_the_type_of_its_service(variant: Variant) -> None:
    for type_url in (ENDPOINTS, ""):
        assert MemoisedStream(variant.core, type_url, memo=TransitionMemo()).type_url == type_url


def test_names_are_counted() -> None:
    assert DELTA.count_names(DELTA.parse(delta(3, 2).SerializeToString())) == 5
    assert SOTW.count_names(discovery_pb2.DiscoveryRequest(resource_names=["a", "b"])) == 2


@given(st.integers(0, 4 * NAMES_PER_PART))
def test_the_parts_of_a_delta_request_have_the_effect_of_the_whole(names: int) -> None:
    whole = delta(names)
    expected = list(whole.resource_names_subscribe)
    parts = DELTA.divide(whole)
    assert len(parts) == max(1, -(-names // NAMES_PER_PART))
    assert [name for part in parts for name in part.resource_names_subscribe] == expected
    assert all(len(part.resource_names_subscribe) <= NAMES_PER_PART for part in parts)
    assert {part.type_url for part in parts} == {ENDPOINTS}
    # The first part has the ACK and the node. The other parts only subscribe.
    assert (parts[0].response_nonce, parts[0].node.id) == ("7", "edge-1")
    assert all(not part.response_nonce and not part.HasField("node") for part in parts[1:])


def test_requests_that_can_not_be_divided_stay_whole() -> None:
    returning = delta(2 * NAMES_PER_PART, held=1)
    assert DELTA.divide(returning) == [returning]
    sotw = discovery_pb2.DiscoveryRequest(resource_names=["a"] * 2 * NAMES_PER_PART)
    assert SOTW.divide(sotw) == [sotw]
