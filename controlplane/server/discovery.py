"""xDS over gRPC: the services, and every stream of theirs that is open.

Each service is there in both variants over one and the same pump (`pump.py`): ADS, where a stream speaks of any type, and the
services of a single type. Of types that the compiler makes nothing of (secrets, extension configurations, virtual hosts,
runtime layers) a client gets what the protocol says of names that don't exist.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import unquote

import grpc

from controlplane.errors import Code, Error
from controlplane.fleet import Closed, Opened, Report, StreamId
from controlplane.latest import Latest
from controlplane.server.limits import Limits
from controlplane.server.pump import DELTA, SOTW, Pump, Variant
from controlplane.server.siblings import Siblings
from controlplane.server.unhurried import unhurried
from controlplane.snapshot import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.world import World
from controlplane.xds.status import ResourceStatus, merged, statuses

# A new world reaches this many streams before the event loop sees to other things.
_BATCH = 50

_TYPES = "type.googleapis.com/envoy."

# Service, what its methods are named after, and the type that its streams are about: any, on ADS.
SERVICES = (
    ("discovery.v3.AggregatedDiscoveryService", "AggregatedResources", ""),
    ("cluster.v3.ClusterDiscoveryService", "Clusters", CLUSTER),
    ("endpoint.v3.EndpointDiscoveryService", "Endpoints", ENDPOINTS),
    ("listener.v3.ListenerDiscoveryService", "Listeners", LISTENER),
    ("route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes", SCOPED_ROUTES),
    ("route.v3.RouteDiscoveryService", "Routes", ROUTES),
    ("route.v3.VirtualHostDiscoveryService", "VirtualHosts", f"{_TYPES}config.route.v3.VirtualHost"),
    ("secret.v3.SecretDiscoveryService", "Secrets", f"{_TYPES}extensions.transport_sockets.tls.v3.Secret"),
    ("runtime.v3.RuntimeDiscoveryService", "Runtime", f"{_TYPES}service.runtime.v3.Runtime"),
    ("extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs", f"{_TYPES}config.core.v3.TypedExtensionConfig"),
)


class Discovery:
    """The xDS services, and every stream of theirs that is open."""

    def __init__(
        self, worlds: Latest[World | None], report: Callable[[StreamId, Report], None], limits: Limits | None = None
    ) -> None:
        self._worlds = worlds
        self._report = report
        self._limits = limits or Limits()
        self._ids = itertools.count(1)
        self._pumps: dict[StreamId, Pump] = {}
        # By node id; of nodes that have a stream.
        self._nodes: dict[str, Siblings] = {}
        self._closing = False

    def handlers(self) -> list[grpc.GenericRpcHandler[Any, Any]]:
        """What a gRPC server serves."""
        return [self._service(*service) for service in SERVICES]

    def _service(self, name: str, stem: str, type_url: str) -> grpc.GenericRpcHandler[Any, Any]:
        methods = {
            f"Delta{stem}": grpc.stream_stream_rpc_method_handler(self._handler(DELTA, type_url)),
            f"Stream{stem}": grpc.stream_stream_rpc_method_handler(self._handler(SOTW, type_url)),
            f"Fetch{stem}": grpc.unary_unary_rpc_method_handler(_polled(stem)),
        }
        return grpc.method_handlers_generic_handler(f"envoy.service.{name}", methods)

    def _handler(self, variant: Variant, type_url: str) -> Callable[[Any, Any], Any]:
        async def serve(_: Any, context: Any) -> None:
            try:
                await self._serve(variant, type_url, context)
            except Error as error:
                await context.abort(grpc.StatusCode[error.code.name], error.message)

        return serve

    async def _serve(self, variant: Variant, type_url: str, context: Any) -> None:
        if self._closing or self._worlds.value is None:
            why = "is stopping" if self._closing else "has not loaded its state yet"
            raise Error(Code.UNAVAILABLE, "NOT_SERVING", f"the control plane {why}; try again")
        stream = next(self._ids)

        def report(event: Report) -> None:
            self._report(stream, event)

        pump = self._pumps[stream] = Pump(variant, type_url, self._worlds, report, self._nodes, self._limits)
        report(Opened(peer(context.peer()), variant.name))
        try:
            await pump.run(context)
        finally:
            del self._pumps[stream]
            report(Closed())

    async def run(self) -> None:
        """Offers each newest world to every stream, until it is cancelled."""
        seen = 0
        while True:
            seen = await self._worlds.newer(seen)
            # Those that take long come last, so that they keep nobody waiting.
            for pumps in batches(sorted(self._pumps.values(), key=lambda pump: pump.dear), _BATCH):
                for pump in pumps:
                    pump.offer()
                    if pump.dear:
                        await asyncio.sleep(0)
                await asyncio.sleep(0)

    def reconnect(self, node_id: str) -> int:
        """Ends the streams of a node well, so that it connects anew. Returns how many; 0 when it has none."""
        streams = self._nodes.get(node_id)
        if streams is None:
            return 0
        streams.end()
        return len(streams)

    async def describe(self, node_id: str) -> list[ResourceStatus]:
        """What a node holds of each resource, against what it should; nothing when it has no streams here."""
        streams = self._nodes.get(node_id)
        if streams is None:
            return []
        parts = statuses(streams.cores, asyncio.get_running_loop().time())
        return merged([part async for part in unhurried(parts)])

    def close(self) -> None:
        """Ends every stream well, and takes no new ones. Envoys keep what they have, and look for a control plane again."""
        self._closing = True
        for pump in self._pumps.values():
            pump.end()


def _polled(stem: str) -> Callable[[Any, Any], Any]:
    async def refuse(_: Any, context: Any) -> None:
        message = f"Fetch{stem}: polling is not served; open a stream with Stream{stem} or Delta{stem}"
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, message)

    return refuse


T = TypeVar("T")


def batches(items: list[T], size: int) -> Iterable[list[T]]:
    """`items` in runs of `size`."""
    return (items[i : i + size] for i in range(0, len(items), size))


def peer(said: str) -> str:
    """`127.0.0.1:5000` for gRPC's `ipv4:127.0.0.1:5000`; `[::1]:5000` for its `ipv6:%5B::1%5D:5000`."""
    return unquote(said.partition(":")[2])
