"""Responses as bytes. A resource is wrapped once per content, whatever the number of streams that it is sent on.

Serialised protobuf messages concatenate: the bytes of a message's fields, put one after another in any order, are the
message. So the repeated `resources` are prepared and shared, and the few fields around them are added per response.
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

# gRPC clients refuse messages above 4 MiB by default; some room is left for the outer fields.
LIMIT = 4 * 1024 * 1024 - 64 * 1024


@lru_cache(maxsize=16_384)
def delta_entry(resource: Resource, ttl: int = 0) -> bytes:
    """The resource as one element of DeltaDiscoveryResponse.resources. `ttl`: seconds, 0 for none."""
    entry = _wrapped(resource, ttl)
    entry.resource.CopyFrom(_any(resource))
    part: bytes = discovery_pb2.DeltaDiscoveryResponse(resources=[entry]).SerializeToString(deterministic=True)
    return part


@lru_cache(maxsize=16_384)
def sotw_entry(resource: Resource, ttl: int = 0) -> bytes:
    """The resource as one element of DiscoveryResponse.resources; with a TTL it is wrapped ("SotW TTL")."""
    inner = _any(resource)
    if ttl:
        entry = _wrapped(resource, ttl)
        entry.resource.CopyFrom(inner)
        inner = any_pb2.Any(type_url=WRAPPER, value=entry.SerializeToString(deterministic=True))
    part: bytes = discovery_pb2.DiscoveryResponse(resources=[inner]).SerializeToString(deterministic=True)
    return part


def delta_heartbeat(type_url: str, version: str, nonce: str, resources: Iterable[Resource], ttl: int) -> bytes:
    """A DeltaDiscoveryResponse that prolongs these and brings nothing."""
    message: bytes = discovery_pb2.DeltaDiscoveryResponse(
        type_url=type_url, system_version_info=version, nonce=nonce, resources=[_wrapped(r, ttl) for r in resources]
    ).SerializeToString()
    return message


def sotw_heartbeat(type_url: str, version: str, nonce: str, resources: Iterable[Resource], ttl: int) -> bytes:
    """A DiscoveryResponse that prolongs these and brings nothing."""
    inner = [any_pb2.Any(type_url=WRAPPER, value=_wrapped(r, ttl).SerializeToString()) for r in resources]
    message: bytes = discovery_pb2.DiscoveryResponse(
        type_url=type_url, version_info=version, nonce=nonce, resources=inner
    ).SerializeToString()
    return message


def delta_response(
    type_url: str, version: str, nonce: str, resources: Iterable[Resource], removed: Iterable[str], ttl: int = 0
) -> bytes:
    """A DeltaDiscoveryResponse."""
    outer: bytes = discovery_pb2.DeltaDiscoveryResponse(
        type_url=type_url, system_version_info=version, nonce=nonce, removed_resources=removed
    ).SerializeToString()
    return b"".join((*(delta_entry(r, ttl) for r in resources), outer))


def sotw_response(type_url: str, version: str, nonce: str, resources: Iterable[Resource], ttl: int = 0) -> bytes:
    """A DiscoveryResponse."""
    outer: bytes = discovery_pb2.DiscoveryResponse(type_url=type_url, version_info=version, nonce=nonce).SerializeToString()
    return b"".join((*(sotw_entry(r, ttl) for r in resources), outer))


def sotw_missing(names: Iterable[str]) -> bytes:
    """What a DiscoveryResponse says of names that were asked for and are not there; to be put after it (xRFC TP3)."""
    errors = [
        discovery_pb2.ResourceError(
            resource_name=discovery_pb2.ResourceName(name=name),
            error_detail=status_pb2.Status(code=code_pb2.NOT_FOUND, message="there is none"),
        )
        for name in names
    ]
    part: bytes = discovery_pb2.DiscoveryResponse(resource_errors=errors).SerializeToString()
    return part


def _wrapped(resource: Resource, ttl: int) -> discovery_pb2.Resource:
    """Name, version and TTL; without a body it is a heartbeat ("TTL")."""
    entry = discovery_pb2.Resource(name=resource.name, version=resource.version)
    if ttl:
        entry.ttl.seconds = ttl
    return entry


def _any(resource: Resource) -> any_pb2.Any:
    return any_pb2.Any(type_url=resource.type_url, value=resource.body)
