"""The two variants of xDS, delta and state of the world: parse a request, count its names, divide it when it is large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

from controlplane.xds.delta import DeltaStream
from controlplane.xds.memo import Core
from controlplane.xds.sotw import SotwStream

# Delta: a request with more names than this is processed in parts of this size, and other streams are served in between.
NAMES_PER_PART = 5_000


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant of xDS."""

    name: str
    # The protocol core of a stream.
    core: type[Core]
    # Parse a request. Errors: DecodeError.
    parse: Callable[[bytes], Any]
    # The numbers of the fields that have names: those that are subscribed to, unsubscribed from, or held.
    name_fields: frozenset[int]
    # Return the number of names in a request.
    count_names: Callable[[Any], int]
    # Return the parts of a request. They have the same effect when they are received one after the other.
    divide: Callable[[Any], list[Any]]


def _count_delta_names(request: Any) -> int:
    return len(request.resource_names_subscribe) + len(request.initial_resource_versions)


def _divide_delta(request: Any) -> list[Any]:
    names = request.resource_names_subscribe
    # A request with initial_resource_versions stays whole: clients send them with the first request of a type only, and they
    # belong to the names of that request.
    if len(names) <= NAMES_PER_PART or request.initial_resource_versions:
        return [request]
    parts = [list(names[i : i + NAMES_PER_PART]) for i in range(0, len(names), NAMES_PER_PART)]
    del request.resource_names_subscribe[:]
    request.resource_names_subscribe.extend(parts[0])
    subscribe = partial(discovery_pb2.DeltaDiscoveryRequest, type_url=request.type_url)
    return [request, *(subscribe(resource_names_subscribe=part) for part in parts[1:])]


def _count_sotw_names(request: Any) -> int:
    return len(request.resource_names)


def _keep_whole(request: Any) -> list[Any]:
    return [request]


DELTA = Variant(
    "delta",
    DeltaStream,
    discovery_pb2.DeltaDiscoveryRequest.FromString,
    frozenset((3, 4, 5)),
    _count_delta_names,
    _divide_delta,
)
SOTW = Variant(
    "sotw",
    SotwStream,
    discovery_pb2.DiscoveryRequest.FromString,
    frozenset((3,)),
    _count_sotw_names,
    _keep_whole,
)
