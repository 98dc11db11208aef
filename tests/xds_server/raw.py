"""xDS requests and responses for the client of `tests/http2/raw.py`."""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import LISTENER
from tests.http2.raw import Raw, prefixed

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def request(*, node: str = "raw", type_url: str = LISTENER, padding: str = "") -> bytes:
    """Return a first delta request, with gRPC's prefix."""
    message = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url)
    message.node.id = node
    if padding:
        message.resource_names_subscribe.append(padding)
    return prefixed(message.SerializeToString())


def responses(client: Raw, stream: int) -> list[discovery_pb2.DeltaDiscoveryResponse]:
    """Return the complete responses of a stream."""
    return [discovery_pb2.DeltaDiscoveryResponse.FromString(message) for message in client.messages(stream)]
