"""Read compiled resources back: the message, and the object of desired state that it was compiled from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from controlplane.compiler.access_log import is_collector
from controlplane.compiler.secrets import secret_label
from controlplane.domain import Gateway, Model, Secret
from controlplane.domain.collections import resource_name
from controlplane.envoy_types import CLUSTER, COMPILED, EXTENSIONS, LISTENER, ROUTES, SCOPED_ROUTES, SECRET
from controlplane.snapshot import Resource

_MESSAGES: Mapping[str, Any] = {t.url: t.message_class() for t in COMPILED.values()}


def decoded(resource: Resource) -> Any:
    """Return the message of a resource. Errors: DecodeError if its body is not a message of its type."""
    return _MESSAGES[resource.type_url].FromString(resource.body)


def unpack(message: Any) -> Any:
    """Return the message in a `google.protobuf.Any`.

    Errors: KeyError if its type is not known here; DecodeError if its value is not of that type.
    """
    descriptor = descriptor_pool.Default().FindMessageTypeByName(message.type_url.rpartition("/")[2])
    return message_factory.GetMessageClass(descriptor).FromString(message.value)


def owner(resource: Resource) -> str:
    """Return the name of the object that a resource was compiled from: `models/iris` for its cluster `iris/blue`."""
    if resource.type_url == LISTENER:
        listener = decoded(resource)
        is_proxyless = listener.HasField("api_listener")
        return resource_name(Model, resource.name) if is_proxyless else resource_name(Gateway, _gateway(listener))
    if resource.type_url == SCOPED_ROUTES:
        return _owner_of_routes(decoded(resource).route_configuration_name)
    if resource.type_url == ROUTES:
        return _owner_of_routes(resource.name)
    if resource.type_url == SECRET:
        return resource_name(Secret, secret_label(resource.name))
    if resource.type_url == EXTENSIONS or (
        resource.type_url == CLUSTER and (is_collector(resource.name) or _is_added(resource.name))
    ):
        return "/".join(resource.name.split("/")[:2])
    return resource_name(Model, resource.name.partition("/")[0])


def is_gateways_own(routes: str) -> bool:
    """Return True if a RouteConfiguration of this name has the routes of a gateway itself, and not those of a model."""
    return routes.startswith(f"{Gateway.collection}/")


def _is_added(cluster: str) -> bool:
    """Return True if a cluster of this name was added by a patch of a gateway (`patches.py`)."""
    return cluster.startswith(f"{Gateway.collection}/") and cluster.split("/")[2:3] == ["patches"]


def _owner_of_routes(routes: str) -> str:
    return routes if is_gateways_own(routes) else resource_name(Model, routes)


def _gateway(listener: Any) -> str:
    """Return the name of a listener's gateway, which is its statistics prefix; without a prefix, the listener's own name."""
    try:
        stat_prefix = unpack(listener.filter_chains[0].filters[0].typed_config).stat_prefix
    except (IndexError, KeyError, DecodeError):
        stat_prefix = ""
    return str(stat_prefix or listener.name)
