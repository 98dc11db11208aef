"""Small snapshots, and a client's delta requests, for the tests of single modules."""

from __future__ import annotations

from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds.delta import DeltaStream

MIB = 1024 * 1024


def many(revision: int, count: int, type_url: str = CLUSTER, size: int = 10, first: int = 0) -> Snapshot:
    """Return a snapshot with `count` resources of a type. `first` is the content of the first one."""
    others = [Resource.of(type_url, f"n{i}", b"x" * size) for i in range(1, count)]
    return Snapshot.of(revision, Audience(), [Resource.of(type_url, "n0", b"%d" % first), *others])


def ask(type_url: str, nonce: str = "", names: list[str] | None = None, **fields: Any) -> Any:
    """Return a delta request."""
    return discovery_pb2.DeltaDiscoveryRequest(
        type_url=type_url, response_nonce=nonce, resource_names_subscribe=names or [], **fields
    )


def responses(stream: DeltaStream) -> list[Any]:
    """Take out the responses of a delta stream."""
    return [discovery_pb2.DeltaDiscoveryResponse.FromString(data) for data in stream.to_send()]
