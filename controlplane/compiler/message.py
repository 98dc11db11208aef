"""Small messages that compiled messages are made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import address_pb2, base_pb2, config_source_pb2
from google.protobuf import any_pb2, duration_pb2

from controlplane.snapshot import Resource


def resource(type_url: str, message: Any, refs: Iterable[tuple[str, str]] = ()) -> Resource:
    """Return a resource with this message as its body. A ClusterLoadAssignment is named after its cluster."""
    name = message.cluster_name if hasattr(message, "cluster_name") else message.name
    # Deterministic, since maps have no order otherwise, and the version is a hash of these bytes.
    return Resource.of(type_url, name, message.SerializeToString(deterministic=True), refs)


def packed(message: Any) -> Any:
    """Return `message` in a google.protobuf.Any, with the same bytes each time."""
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed


def duration(seconds: float) -> Any:
    """Return a google.protobuf.Duration, rounded to the microsecond."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return duration_pb2.Duration(seconds=whole, nanos=micros * 1000)


def socket_address(host: str, port: int) -> Any:
    """Return a TCP address. `host` is an IP address, or a DNS name where Envoy resolves it."""
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=host, port_value=port))


def over_ads() -> Any:
    """Return the source of everything dynamic: the ADS stream that named it."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.ApiVersion.V3
    )


def set_header(mutations: Any, name: str, value: str) -> None:
    """Add to a list of header mutations one that sets a header, whether it exists or not."""
    _set_option(mutations.add().append, name, value)


def set_header_option(options: Any, name: str, value: str) -> None:
    """Add to a list of header options, like `response_headers_to_add`, one that sets a header, whether it exists or not."""
    _set_option(options.add(), name, value)


def _set_option(option: Any, name: str, value: str) -> None:
    option.header.key, option.header.value = name, value
    option.append_action = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
