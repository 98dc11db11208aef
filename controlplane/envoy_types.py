"""The one table of Envoy's resource types. Everything that depends on the type of a resource is derived from this table.

Rows are in the order of "make before break" (xDS protocol, "Eventual consistency considerations"). Resources of an earlier
row are sent earlier and removed later. The protocol gives secrets no place in that order, because a resource that names a
secret is warmed until the secret arrives. In the table, secrets come after clusters and before listeners. Configurations of
filters come after listeners: a listener that names one is warmed until it arrives, and a client asks for it only then.

To add a type, add a row here, and a file to `compiler/` that compiles it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PREFIX = "type.googleapis.com/"


def url_of(message: str) -> str:
    """Return the type URL of a message, given its full name."""
    return _PREFIX + message


def short_name(type_url: str) -> str:
    """Return `Cluster` for `type.googleapis.com/envoy.config.cluster.v3.Cluster`."""
    return type_url.rpartition(".")[2]


CLUSTER = url_of("envoy.config.cluster.v3.Cluster")
ENDPOINTS = url_of("envoy.config.endpoint.v3.ClusterLoadAssignment")
SECRET = url_of("envoy.extensions.transport_sockets.tls.v3.Secret")
LISTENER = url_of("envoy.config.listener.v3.Listener")
SCOPED_ROUTES = url_of("envoy.config.route.v3.ScopedRouteConfiguration")
ROUTES = url_of("envoy.config.route.v3.RouteConfiguration")
EXTENSIONS = url_of("envoy.config.core.v3.TypedExtensionConfig")


@dataclass(frozen=True, slots=True)
class EnvoyType:
    """One row: a type that clients can subscribe to."""

    url: str
    # The gRPC service that serves only this type, without `envoy.service.`, and the part of its methods' names that follows
    # `Delta` and `Stream`.
    service: str
    method_stem: str
    # The Python module of the message; "" for a type that is not compiled. A client that asks for such a type gets the
    # protocol's answer for names that do not exist.
    module: str = ""
    # The abbreviation in the protocol's documents; "" for a type that is not compiled.
    abbreviation: str = ""
    # True if a SotW response lists all resources of the type, and an absent resource is deleted ("Grouping Resources into
    # Responses").
    full_state: bool = False
    # Types of the resources that may name one of this type.
    named_by: tuple[str, ...] = ()
    # True if only clients may see the bodies: they are never logged or dumped.
    sensitive: bool = False
    # True if the index of published versions has the versions of the type: losing one of its resources cuts traffic.
    indexed: bool = False

    def message_class(self) -> Any:
        """Return the Python class of the type's message."""
        return getattr(importlib.import_module(self.module), short_name(self.url))


TABLE = (
    EnvoyType(
        CLUSTER,
        service="cluster.v3.ClusterDiscoveryService",
        method_stem="Clusters",
        module="envoy.config.cluster.v3.cluster_pb2",
        abbreviation="cds",
        indexed=True,
        full_state=True,
        named_by=(CLUSTER, ROUTES, LISTENER),
    ),
    EnvoyType(
        ENDPOINTS,
        service="endpoint.v3.EndpointDiscoveryService",
        method_stem="Endpoints",
        module="envoy.config.endpoint.v3.endpoint_pb2",
        abbreviation="eds",
        named_by=(CLUSTER,),
    ),
    EnvoyType(
        SECRET,
        service="secret.v3.SecretDiscoveryService",
        method_stem="Secrets",
        module="envoy.extensions.transport_sockets.tls.v3.secret_pb2",
        abbreviation="sds",
        named_by=(CLUSTER, LISTENER),
        sensitive=True,
    ),
    EnvoyType(
        LISTENER,
        service="listener.v3.ListenerDiscoveryService",
        method_stem="Listeners",
        module="envoy.config.listener.v3.listener_pb2",
        abbreviation="lds",
        indexed=True,
        full_state=True,
    ),
    EnvoyType(
        EXTENSIONS,
        service="extension.v3.ExtensionConfigDiscoveryService",
        method_stem="ExtensionConfigs",
        module="envoy.config.core.v3.extension_pb2",
        abbreviation="ecds",
        named_by=(LISTENER,),
    ),
    EnvoyType(
        SCOPED_ROUTES,
        service="route.v3.ScopedRoutesDiscoveryService",
        method_stem="ScopedRoutes",
        module="envoy.config.route.v3.scoped_route_pb2",
        abbreviation="srds",
        indexed=True,
        full_state=True,
    ),
    EnvoyType(
        ROUTES,
        service="route.v3.RouteDiscoveryService",
        method_stem="Routes",
        module="envoy.config.route.v3.route_pb2",
        abbreviation="rds",
        indexed=True,
        named_by=(SCOPED_ROUTES, LISTENER),
    ),
    EnvoyType(
        url_of("envoy.config.route.v3.VirtualHost"),
        service="route.v3.VirtualHostDiscoveryService",
        method_stem="VirtualHosts",
    ),
    EnvoyType(
        url_of("envoy.service.runtime.v3.Runtime"),
        service="runtime.v3.RuntimeDiscoveryService",
        method_stem="Runtime",
    ),
)

# The compiled types by type URL, in the order of the table.
COMPILED: Mapping[str, EnvoyType] = {t.url: t for t in TABLE if t.module}
ORDER = tuple(COMPILED)
FULL_STATE = frozenset(t.url for t in TABLE if t.full_state)
INDEXED = tuple(t.url for t in TABLE if t.indexed)
SENSITIVE = frozenset(t.url for t in TABLE if t.sensitive)
NAMED_BY: Mapping[str, tuple[str, ...]] = {t.url: t.named_by for t in TABLE if t.named_by}
