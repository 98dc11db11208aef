"""The whole control plane in one process. The only file that knows everyone."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
from typing import Any

import grpc
import structlog
from envoy.service.status.v3 import csds_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from controlplane.api.csds import ClientStatus
from controlplane.api.gateway_service import GatewayService
from controlplane.api.model_service import ModelService
from controlplane.api.node_service import NodeService
from controlplane.api.revision_service import RevisionService
from controlplane.api.secret_service import SecretService
from controlplane.api.status import StatusInterceptor
from controlplane.api.traffic_service import TrafficService
from controlplane.compiler import Compiler
from controlplane.config import Address, Config
from controlplane.errors import Code, Error, invalid
from controlplane.generated.turnout.v1 import (
    gateway_service_pb2,
    gateway_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    node_service_pb2,
    node_service_pb2_grpc,
    revision_service_pb2,
    revision_service_pb2_grpc,
    secret_service_pb2,
    secret_service_pb2_grpc,
    traffic_service_pb2,
    traffic_service_pb2_grpc,
)
from controlplane.reconciler.publish import Observer, Publisher
from controlplane.store import Store
from controlplane.store.sqlite import open_store
from controlplane.workers.supervisor import Supervisor
from controlplane.writer import CachingCompiler, Writer
from controlplane.xds.status import ResourceStatus
from controlplane.xds_server.discovery import Discovery
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.transports import Serving, serve

log = structlog.get_logger("app")

# A manifest of thousands of models fits; a client that sends more is told so.
MAX_API_BYTES = 32 * 1024 * 1024

API_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_API_BYTES),
    ("grpc.max_send_message_length", MAX_API_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
]


class App:
    """The control plane: a store, what follows from it, and two gRPC servers."""

    def __init__(self, config: Config) -> None:
        self.config = config
        # Where it listens, once it has started; what was asked for, but for port 0.
        self.api_port = self.xds_port = 0
        self._observer = Observer()
        # Set once it serves.
        self.started = asyncio.Event()
        self._health: Any = vars(health)["aio"].HealthServicer()  # not in its stubs
        self._store: Store | None = None
        # What serves xDS: one of the two.
        self._discovery: Discovery | None = None
        self._xds: Serving | None = None
        self.workers: Supervisor | None = None
        # The xDS port, so that no other program takes it while no worker listens.
        self._reserved: list[socket.socket] = []
        self._servers: list[grpc.aio.Server] = []
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Loads the state, and serves. Errors: the store's; UNAVAILABLE / PORT_TAKEN. Nothing is left behind by an error."""
        await self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            await self._start()
        except BaseException:
            await self.stop(grace=0)
            raise
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        self.started.set()
        log.info(
            "serving",
            api=str(Address(self.config.api.host, self.api_port)),
            xds=str(Address(self.config.xds.host, self.xds_port)),
            data=str(self.config.data),
            **({"workers": self.config.workers} if self.config.workers else {}),
            revision=self._observer.fleet.revision,
        )

    async def _start(self) -> None:
        self._store = store = await open_store(self.config.data, key_file=self.config.secret_key_file)
        compiler = CachingCompiler(Compiler())
        publisher = Publisher(store.head, compiler, self._observer)
        publisher.publish()
        c = self.config
        limits = StreamLimits(
            c.max_streams_per_node,
            c.max_names_per_stream,
            c.max_stream_age,
            resource_ttl=round(c.resource_ttl),
            load_reports=c.load_report_interval,
        )
        api = grpc.aio.server(options=API_OPTIONS, interceptors=[StatusInterceptor()])
        self._servers = [api]
        self._register(api, Writer(store, compiler, self._observer.by_audience), store)
        self.api_port = listen(api, c.api, "api")
        if c.workers:
            self.workers = Supervisor(
                c.workers, publisher.published, self._observer.report, limits, c.xds_transport, c.log_form, c.log_level
            )
            self.xds_port, self._reserved = reserve(c.xds, "xds")
            await self.workers.start(str(Address(c.xds.host, self.xds_port)))
            serving = self.workers.run()
        else:
            self._discovery = Discovery(publisher.published, self._observer.report, limits)
            check_free(c.xds, "xds")
            try:
                self._xds = await serve(self._discovery, c.xds.host, c.xds.port, limits, transport=c.xds_transport)
            except OSError:
                raise taken(c.xds) from None
            self.xds_port = self._xds.port
            serving = self._discovery.run()
        self._loops = [asyncio.create_task(publisher.run()), asyncio.create_task(serving)]
        await asyncio.gather(*(server.start() for server in self._servers))

    def _register(self, server: grpc.aio.Server, writer: Writer, store: Store) -> None:
        changed = self._observer.changed
        gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server(GatewayService(writer, store), server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(writer, store), server)
        revision_service_pb2_grpc.add_RevisionServiceServicer_to_server(RevisionService(writer, store, changed), server)
        secret_service_pb2_grpc.add_SecretServiceServicer_to_server(SecretService(writer, store), server)
        node_service_pb2_grpc.add_NodeServiceServicer_to_server(NodeService(changed, self._reconnect, self._describe), server)
        server.add_generic_rpc_handlers((ClientStatus(changed, self._describe).handler(),))
        traffic = TrafficService(store, self._observer.traffic, changed)
        traffic_service_pb2_grpc.add_TrafficServiceServicer_to_server(traffic, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        files = (
            gateway_service_pb2,
            model_service_pb2,
            secret_service_pb2,
            revision_service_pb2,
            node_service_pb2,
            traffic_service_pb2,
            csds_pb2,
            health_pb2,
        )
        services = [s.full_name for f in files for s in f.DESCRIPTOR.services_by_name.values()]
        reflection.enable_server_reflection([*services, reflection.SERVICE_NAME], server)

    async def _reconnect(self, node_id: str) -> int:
        if self.workers is not None:
            return await self.workers.reconnect(node_id)
        return self._discovery.reconnect(node_id) if self._discovery is not None else 0

    async def _describe(self, node_id: str) -> list[ResourceStatus]:
        if self.workers is not None:
            return await self.workers.describe(node_id)
        return await self._discovery.describe(node_id) if self._discovery is not None else []

    async def stop(self, grace: float | None = None) -> None:
        """Stops: calls under way may end for `grace` seconds, streams end well, and the store is closed last."""
        grace = self.config.grace if grace is None else grace
        await self._health.enter_graceful_shutdown()
        if self._discovery is not None:
            self._discovery.close()
        self._observer.close()
        ends = [server.stop(grace) for server in self._servers]
        if self._xds is not None:
            ends.append(self._xds.stop(grace))
        if self.workers is not None:
            ends.append(self.workers.stop(grace))
        await asyncio.gather(*ends)
        for sock in self._reserved:
            sock.close()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._store is not None:
            await self._store.close()
        self._servers, self._loops, self._reserved = [], [], []
        self.workers = self._xds = self._store = None

    async def run(self) -> None:
        """Starts, serves until SIGTERM or SIGINT, and stops. A second signal ends the process at once. Errors: `start`'s."""
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        # Before it can be seen from outside: whoever learns that it serves may stop it in the same moment.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        waiting = asyncio.create_task(asked.wait())
        try:
            await self.start()
            # What is there now stays. It is not looked through for garbage, and what streams keep less often.
            gc.freeze()
            gc.set_threshold(20_000, 20, 20)
            await asyncio.wait([waiting, *self._loops], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            ended = [task for task in self._loops if task.done()]
            if self._servers:
                log.info("stopping", grace=self.config.grace)
                await self.stop()
                log.info("stopped")
        for task in ended:
            task.result()


def listen(server: grpc.aio.Server, address: Address, name: str) -> int:
    """Makes `server` listen, and returns the port. Errors: as `reserve`."""
    try:
        # Asked first, since gRPC says neither why it can't listen nor keeps quiet about it.
        check_free(address, name)
        return server.add_insecure_port(str(address))
    except RuntimeError:
        raise taken(address) from None


def reserve(address: Address, name: str) -> tuple[int, list[socket.socket]]:
    """Takes a port for several processes to listen on: by sockets that don't listen, one for each address of the host.

    Errors: UNAVAILABLE / PORT_TAKEN; INVALID_ARGUMENT for an address that is not this machine's.
    """
    # Who listens already might have said that it shares: so first it is asked without sharing.
    check_free(address, name)
    sockets: list[socket.socket] = []
    port = address.port
    try:
        for family, kind, protocol, _, where in socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((where[0], port, *where[2:]))
            port = sock.getsockname()[1]
    except OSError:
        for sock in sockets:
            sock.close()
        raise taken(address) from None
    return port, sockets


def check_free(address: Address, name: str) -> None:
    """Errors: as `reserve`."""
    if not address.loopback:
        log.warning("reachable from other machines, and there is no authentication yet", **{name: str(address)})
    try:
        for family, kind, protocol, _, where in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(where)
    except socket.gaierror:
        raise invalid(name, f"'{address.host}' is not the name of a machine") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise taken(address) from None
        raise invalid(name, f"can't listen on {address}: {(error.strerror or str(error)).lower()}", "CANNOT_LISTEN") from None


def taken(address: Address) -> Error:
    """What is said of a port that another program listens on."""
    message = f"{address} is taken: another program listens there, maybe a control plane that runs already"
    return Error(Code.UNAVAILABLE, "PORT_TAKEN", message, metadata={"address": str(address)})
