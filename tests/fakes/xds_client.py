"""An xDS client on a real socket. It subscribes like an Envoy, applies responses, and ACKs or NACKs them.

Like an Envoy, it follows references: from clusters to endpoints, from listeners to scopes, from scopes to routes, and from
clusters and listeners to secrets. It uses delta or SotW over one ADS stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2, scoped_route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.compiler.decode import unpack
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES, SECRET

# Missing in gRPC's type stubs.
EOF: Any = vars(grpc.aio)["EOF"]

_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
_MESSAGES = {
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    LISTENER: listener_pb2.Listener,
    SCOPED_ROUTES: scoped_route_pb2.ScopedRouteConfiguration,
    ROUTES: route_pb2.RouteConfiguration,
    SECRET: secret_pb2.Secret,
}
_WILDCARDS = (CLUSTER, LISTENER)

# The details that gRPC's Python client gives in place of the server's status, if it writes at the moment when a stream ends.
_STATUS_LOST = "Internal error from Core"

Held = dict[str, dict[str, tuple[str, bytes]]]  # type URL -> name -> (version, body)


class XdsClient:
    """One client with one stream. `client` below starts and stops it."""

    def __init__(
        self,
        port: int,
        node: str,
        variant: str = "delta",
        *,
        cluster: str = "edge",
        metadata: Mapping[str, str] | None = None,
        held: Held | None = None,
        refuse: Callable[[str, list[str]], str] = lambda type_url, names: "",
    ) -> None:
        """Start with the resources `held` of an earlier stream. `refuse` returns the message of a NACK, or "" to ACK."""
        self.port, self.node, self.variant = port, node, variant
        self.identity = discovery_pb2.DiscoveryRequest().node
        self.identity.id, self.identity.cluster = node, cluster
        self.identity.user_agent_name, self.identity.user_agent_version = "fake", "1.0"
        self.identity.metadata.update(dict(metadata or {}))
        self.held: Held = held or {}
        self.refuse = refuse
        # (type URL, names, removed names) of each response, in order of arrival.
        self.responses: list[tuple[str, list[str], list[str]]] = []
        self.nacks = 0
        # Bytes of all responses.
        self.bytes = 0
        # Number of responses that the client has answered and whose references it has followed.
        self.done = 0
        # Time of the newest response, by `time.perf_counter`.
        self.last_at = 0.0
        # The status with which the stream ended; None while it is open.
        self.ended: grpc.StatusCode | None = None
        self.details = ""
        # While this is not set, the client reads at most one response, and answers none.
        self.reading = asyncio.Event()
        self.reading.set()
        self._subscribed: dict[str, set[str]] = {}
        self._versions: dict[str, str] = {}
        self._nonces: dict[str, str] = {}
        self._changed = asyncio.Condition()

    def names(self, type_url: str) -> set[str]:
        return set(self.held.get(type_url, {}))

    def body(self, type_url: str, name: str) -> bytes:
        return self.held[type_url][name][1]

    async def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until a condition about the client is true."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(condition), seconds)

    async def run(self) -> None:
        """Hold a stream until it ends."""
        status, details = await self._stream()
        while details == _STATUS_LOST:
            status, details = await self._stream()
        self.ended, self.details = status, details
        await self._notify()

    async def _stream(self) -> tuple[grpc.StatusCode, str]:
        """Hold one stream. Return the status with which it ended."""
        self._subscribed.clear()
        self._nonces.clear()
        delta = self.variant == "delta"
        method = "DeltaAggregatedResources" if delta else "StreamAggregatedResources"
        response_type: Any = discovery_pb2.DeltaDiscoveryResponse if delta else discovery_pb2.DiscoveryResponse
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            open_stream: Any = channel.stream_stream(
                _ADS + method,
                request_serializer=lambda r: r.SerializeToString(),
                response_deserializer=response_type.FromString,
            )
            call = open_stream()
            try:
                for type_url in _WILDCARDS:
                    await self._subscribe(call, type_url, set())
                for type_url in list(self.held):  # subscribe again to the resources that it holds
                    await self._follow(call, type_url)
                while True:
                    response = await call.read()
                    if response is EOF:
                        break
                    await self.reading.wait()
                    await self._apply(call, response)
                    self.done += 1
                    await self._notify()
                return await call.code(), await call.details()
            except grpc.aio.AioRpcError as error:
                return error.code(), error.details() or ""
            except asyncio.InvalidStateError:
                return await call.code(), await call.details()
            finally:
                call.cancel()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _apply(self, call: Any, response: Any) -> None:
        self.last_at = time.perf_counter()
        type_url = response.type_url
        self.bytes += response.ByteSize()
        if self.variant == "delta":
            received = {r.name: (r.version, r.resource.value) for r in response.resources}
            removed = list(response.removed_resources)
        else:
            received = {_name(r): (response.version_info, r.value) for r in response.resources}
            full = type_url in (*_WILDCARDS, SCOPED_ROUTES)
            removed = [n for n in self.held.get(type_url, {}) if n not in received] if full else []
        self.responses.append((type_url, sorted(received), sorted(removed)))
        self._nonces[type_url] = response.nonce
        message = self.refuse(type_url, sorted(received))
        if message:
            self.nacks += 1
        else:
            held = self.held.setdefault(type_url, {})
            held.update(received)
            for name in removed:
                held.pop(name, None)
            if self.variant == "sotw":
                self._versions[type_url] = response.version_info
        await self._answer(call, type_url, response.nonce, message)
        if not message:
            await self._follow(call, type_url)

    async def _answer(self, call: Any, type_url: str, nonce: str, message: str) -> None:
        if self.variant == "delta":
            request: Any = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce)
        else:
            request = discovery_pb2.DiscoveryRequest(
                type_url=type_url,
                response_nonce=nonce,
                version_info=self._versions.get(type_url, ""),
                resource_names=sorted(self._subscribed[type_url]),
            )
        if message:
            request.error_detail.code, request.error_detail.message = 13, message
        await call.write(request)

    async def _follow(self, call: Any, type_url: str) -> None:
        bodies = [body for _, body in self.held.get(type_url, {}).values()]
        if type_url in (CLUSTER, LISTENER):
            await self._subscribe(call, SECRET, self._secrets())
        if type_url == CLUSTER:
            clusters = [cluster_pb2.Cluster.FromString(body) for body in bodies]
            await self._subscribe(call, ENDPOINTS, {c.name for c in clusters if c.HasField("eds_cluster_config")})
        elif type_url == LISTENER and bodies:
            await self._subscribe(call, SCOPED_ROUTES, set())
        elif type_url == SCOPED_ROUTES:
            scopes = [scoped_route_pb2.ScopedRouteConfiguration.FromString(body) for body in bodies]
            await self._subscribe(call, ROUTES, {s.route_configuration_name for s in scopes})

    def _secrets(self) -> set[str]:
        """Return the names of the secrets that the held clusters and listeners need."""
        clusters = [cluster_pb2.Cluster.FromString(body) for _, body in self.held.get(CLUSTER, {}).values()]
        sockets = [cluster.transport_socket for cluster in clusters]
        for _, body in self.held.get(LISTENER, {}).values():
            sockets += [chain.transport_socket for chain in listener_pb2.Listener.FromString(body).filter_chains]
        named = {name for cluster in clusters for name in _credentials(cluster)}
        for common in (unpack(s.typed_config).common_tls_context for s in sockets if s.HasField("typed_config")):
            named.update(c.name for c in common.tls_certificate_sds_secret_configs)
            named.add(common.validation_context_sds_secret_config.name)
            named.add(common.combined_validation_context.validation_context_sds_secret_config.name)
        return named - {""}

    async def _subscribe(self, call: Any, type_url: str, names: set[str]) -> None:
        """Subscribe to exactly these names. Without names, subscribe to all resources of a type that allows it."""
        first = type_url not in self._subscribed
        before = self._subscribed.get(type_url, set())
        wildcard = type_url in (*_WILDCARDS, SCOPED_ROUTES)
        if not (first and (names or wildcard)) and names == before:
            return
        self._subscribed[type_url] = names
        if self.variant == "delta":
            request: Any = discovery_pb2.DeltaDiscoveryRequest(
                type_url=type_url,
                resource_names_subscribe=sorted(names - before),
                resource_names_unsubscribe=sorted(before - names),
            )
            if first:
                request.initial_resource_versions.update({n: v for n, (v, _) in self.held.get(type_url, {}).items()})
            for name in before - names:
                self.held.get(type_url, {}).pop(name, None)
        else:
            request = discovery_pb2.DiscoveryRequest(
                type_url=type_url,
                resource_names=sorted(names),
                version_info=self._versions.get(type_url, ""),
                response_nonce=self._nonces.get(type_url, ""),
            )
        request.node.CopyFrom(self.identity)
        await call.write(request)


def _name(resource: Any) -> str:
    """Return the name of a resource in a SotW response."""
    message = _MESSAGES[resource.type_url].FromString(resource.value)
    return str(message.cluster_name if resource.type_url == ENDPOINTS else message.name)


def _credentials(cluster: Any) -> Iterator[str]:
    """Yield the names of the secrets that the upstream HTTP filters of a cluster inject."""
    for options in cluster.typed_extension_protocol_options.values():
        for http_filter in unpack(options).http_filters:
            if http_filter.name == "envoy.filters.http.credential_injector":
                yield unpack(unpack(http_filter.typed_config).credential.typed_config).credential.name


@asynccontextmanager
async def client(port: int, node: str, variant: str = "delta", **options: Any) -> AsyncIterator[XdsClient]:
    """Run a client while the `with` block runs. `options` are those of `XdsClient`."""
    c = XdsClient(port, node, variant, **options)
    task = asyncio.create_task(c.run())
    try:
        yield c
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
