"""Serialise responses. Each content of a resource is serialised once, whatever the number of streams that it is sent on.

Serialised protobuf messages concatenate: the bytes of a message's fields, in any order, one after another, are the message. So
the repeated field `resources` is serialised once and shared, and the few other fields are added for each response. A
response has whole resources of one type, and no name twice (rule 23).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from google.rpc import code_pb2, status_pb2

from controlplane.envoy_types import url_of
from controlplane.snapshot import Resource

WRAPPER = url_of("envoy.service.discovery.v3.Resource")

# gRPC clients refuse messages above 4 MiB by default. This leaves room for the other fields.
LIMIT = 4 * 1024 * 1024 - 64 * 1024

# Entries that an encoder keeps of each variant. When there are more, it drops the least recently used.
_MOST_ENTRIES = 16_384


class Encoder:
    """Serialises responses, and keeps the bytes of each resource for further streams."""

    def __init__(self) -> None:
        # The resource as one element of `resources`, of DeltaDiscoveryResponse and of DiscoveryResponse. The second argument
        # is the TTL in seconds, 0 for none.
        self.delta_entry = lru_cache(_MOST_ENTRIES)(_delta_entry)
        self.sotw_entry = lru_cache(_MOST_ENTRIES)(_sotw_entry)

    def delta_response(
        self, type_url: str, version: str, nonce: str, resources: Iterable[Resource], removed: Iterable[str], ttl: int = 0
    ) -> bytes:
        """Return a DeltaDiscoveryResponse. `ttl`: seconds, 0 for none."""
        outer: bytes = discovery_pb2.DeltaDiscoveryResponse(
            type_url=type_url, system_version_info=version, nonce=nonce, removed_resources=removed
        ).SerializeToString()
        return b"".join((*(self.delta_entry(r, ttl) for r in resources), outer))

    def sotw_response(self, type_url: str, version: str, nonce: str, resources: Iterable[Resource], ttl: int = 0) -> bytes:
        """Return a DiscoveryResponse. `ttl`: seconds, 0 for none."""
        outer: bytes = discovery_pb2.DiscoveryResponse(
            type_url=type_url, version_info=version, nonce=nonce
        ).SerializeToString()
        return b"".join((*(self.sotw_entry(r, ttl) for r in resources), outer))


def delta_heartbeat(type_url: str, version: str, nonce: str, resources: Iterable[Resource], ttl: int) -> bytes:
    """Return a DeltaDiscoveryResponse that renews the TTL of these resources, without their bodies (rule 34)."""
    message: bytes = discovery_pb2.DeltaDiscoveryResponse(
        type_url=type_url, system_version_info=version, nonce=nonce, resources=[_wrapped(r, ttl) for r in resources]
    ).SerializeToString()
    return message


def sotw_heartbeat(type_url: str, version: str, nonce: str, resources: Iterable[Resource], ttl: int) -> bytes:
    """Return a DiscoveryResponse that renews the TTL of these resources, without their bodies (rule 34)."""
    inner = [any_pb2.Any(type_url=WRAPPER, value=_wrapped(r, ttl).SerializeToString()) for r in resources]
    message: bytes = discovery_pb2.DiscoveryResponse(
        type_url=type_url, version_info=version, nonce=nonce, resources=inner
    ).SerializeToString()
    return message


def sotw_missing(names: Iterable[str]) -> bytes:
    """Return the end of a DiscoveryResponse: the requested names that do not exist (rule 35, xRFC TP3)."""
    errors = [
        discovery_pb2.ResourceError(
            resource_name=discovery_pb2.ResourceName(name=name),
            error_detail=status_pb2.Status(code=code_pb2.NOT_FOUND, message="there is none"),
        )
        for name in names
    ]
    part: bytes = discovery_pb2.DiscoveryResponse(resource_errors=errors).SerializeToString()
    return part


def _delta_entry(resource: Resource, ttl: int = 0) -> bytes:
    entry = _wrapped(resource, ttl)
    entry.resource.CopyFrom(_any(resource))
    part: bytes = discovery_pb2.DeltaDiscoveryResponse(resources=[entry]).SerializeToString(deterministic=True)
    return part


def _sotw_entry(resource: Resource, ttl: int = 0) -> bytes:
    """Return the entry; with a TTL the resource is wrapped ("SotW TTL")."""
    inner = _any(resource)
    if ttl:
        entry = _wrapped(resource, ttl)
        entry.resource.CopyFrom(inner)
        inner = any_pb2.Any(type_url=WRAPPER, value=entry.SerializeToString(deterministic=True))
    part: bytes = discovery_pb2.DiscoveryResponse(resources=[inner]).SerializeToString(deterministic=True)
    return part


def _wrapped(resource: Resource, ttl: int) -> discovery_pb2.Resource:
    """Return the resource's name, version and TTL. Without a body it is a heartbeat ("TTL")."""
    entry = discovery_pb2.Resource(name=resource.name, version=resource.version)
    if ttl:
        entry.ttl.seconds = ttl
    return entry


def _any(resource: Resource) -> any_pb2.Any:
    return any_pb2.Any(type_url=resource.type_url, value=resource.body)
