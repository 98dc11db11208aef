"""A plug-in for `turnout serve --patches examples/patch-functions/team_patches.py`.

Each function takes a message of Envoy's API and the settings of the patch, and returns the message. Which objects may name it
follows from the type of the message: a Listener is of a gateway, a RouteConfiguration of a model, a Cluster of a version.
"""

from datetime import timedelta
from typing import Any

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterPreconnectPolicy
from envoy_data_plane.envoy.config.core.v3 import HeaderValue, HeaderValueOption
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from envoy_data_plane.envoy.extensions.filters.http.buffer.v3 import Buffer
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager, HttpFilter
from envoy_data_plane.google.protobuf import Any as Packed


def bounded_bodies(listener: Listener, settings: dict[str, Any]) -> Listener:
    """Refuse bodies above `max_request_bytes`, in every chain of a gateway: a filter before the last one, the router."""
    added = HttpFilter(
        name="team.buffer", typed_config=Packed.pack(Buffer(max_request_bytes=int(settings["max_request_bytes"])))
    )
    for chain in listener.filter_chains:
        manager = chain.filters[-1].typed_config
        assert manager is not None
        connections = manager.unpack()
        assert isinstance(connections, HttpConnectionManager)
        connections.http_filters.insert(len(connections.http_filters) - 1, added)
        chain.filters[-1].typed_config = Packed.pack(connections)
    return listener


def who_owns_it(routes: RouteConfiguration, settings: dict[str, Any]) -> RouteConfiguration:
    """Tell clients which team owns a model."""
    header = HeaderValue(key="x-team", value=settings["team"])
    routes.virtual_hosts[0].response_headers_to_add.append(HeaderValueOption(header=header))
    return routes


def warm(cluster: Cluster, settings: dict[str, Any]) -> Cluster:
    """Open connections to a version before they are needed, and wait for them for a shorter time."""
    cluster.preconnect_policy = ClusterPreconnectPolicy(per_upstream_preconnect_ratio=settings.get("ratio", 1.5))
    cluster.connect_timeout = timedelta(seconds=2)
    return cluster
