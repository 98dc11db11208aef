"""The wiring of the control plane: the only module that creates all its parts and connects them."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import grpc
import structlog
from envoy.service.status.v3 import csds_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from controlplane.api.audit_interceptor import AuditAttempt, AuditOutcome
from controlplane.api.csds import ClientStatus
from controlplane.api.health import Health
from controlplane.api.node_service import NodeService
from controlplane.api.nouns import add_services
from controlplane.api.ports import check_free, listen, port_taken, reserve
from controlplane.api.refused_changes import RefusedChanges
from controlplane.api.revision_service import RevisionService
from controlplane.api.security import ApiSecurity
from controlplane.api.status import StatusInterceptor
from controlplane.api.status_service import StatusService
from controlplane.api.traffic_service import TrafficService
from controlplane.api.watch import current_fleet
from controlplane.audit.export import export_to
from controlplane.audit.heads import HeadKeeper
from controlplane.audit.log import AuditLog, open_log
from controlplane.compiler import Compiler
from controlplane.config import Address, Config
from controlplane.domain.revision import Head
from controlplane.fleet import Fleet
from controlplane.generated.turnout.v1 import (
    node_service_pb2,
    node_service_pb2_grpc,
    revision_service_pb2,
    revision_service_pb2_grpc,
    status_service_pb2,
    status_service_pb2_grpc,
    traffic_service_pb2,
    traffic_service_pb2_grpc,
)
from controlplane.observers.folds import FleetFold, TrafficFold
from controlplane.observers.foreign_versions import ForeignVersions
from controlplane.observers.log import FleetLog
from controlplane.observers.metrics import FleetMetrics
from controlplane.observers.metrics_server import MetricsServer
from controlplane.observers.refused_access import RefusedAccess
from controlplane.observers.transitions import NodeTransitions
from controlplane.patch_functions import PluginFunctions, PluginStore, installed, unenforced
from controlplane.probe import Prober
from controlplane.problems.judge import Observed
from controlplane.reconciler.blocks import BlockKeeper
from controlplane.reconciler.members import MemberKeeper
from controlplane.reconciler.publish import Publisher
from controlplane.reconciler.purge_keys import KeyPurger
from controlplane.reconciler.record_versions import VersionRecorder
from controlplane.reconciler.report import EventDispatcher
from controlplane.snapshot import DiffCache
from controlplane.store import Store
from controlplane.store.key_file import key_source
from controlplane.store.sqlite import SqliteStore, open_store
from controlplane.store.sqlite.sealed_keys import Upkeep
from controlplane.traffic import Traffic
from controlplane.versions import VersionIndex
from controlplane.workers.supervisor import Supervisor, WorkerSettings
from controlplane.writer import CachingCompiler, Writer
from controlplane.xds.context import Context
from controlplane.xds.status import ResourceStatus
from controlplane.xds_server.access import Access
from controlplane.xds_server.discovery import Discovery
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.tls_files import TlsFiles, TlsPaths
from controlplane.xds_server.transports import Serving, serve

log = structlog.get_logger("app")

# Enough for a manifest of thousands of models. Larger messages are refused with RESOURCE_EXHAUSTED.
MAX_API_BYTES = 32 * 1024 * 1024

API_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_API_BYTES),
    ("grpc.max_send_message_length", MAX_API_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    # A few KB can be hundreds of MB when they are decompressed: only `identity` is accepted.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.max_concurrent_streams", 100),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
]


class App:
    """The control plane: a store, the cores and the tasks that follow it, and the servers for operators and Envoys."""

    def __init__(self, config: Config) -> None:
        self.config = config
        # The ports that the servers listen on, once the control plane has started. They are those of the config, or free ports
        # if the config has 0.
        self.api_port = self.xds_port = self.metrics_port = 0
        # Set once the servers accept calls.
        self.started = asyncio.Event()
        self.versions = VersionIndex()
        self.fleet = Fleet(self.versions)
        self.traffic = Traffic(time.time())
        self.metrics = CollectorRegistry()
        self._transitions = NodeTransitions(self.fleet)
        # The observers in the order in which they handle an event. The fold of the fleet must be the first.
        self.events = EventDispatcher(
            self.fleet,
            [
                FleetFold(self.fleet),
                TrafficFold(self.traffic),
                self._transitions,
                FleetLog(self.fleet),
                FleetMetrics(self.fleet, self.metrics),
                RefusedAccess(self.metrics),
                ForeignVersions(self.fleet, self.metrics),
            ],
        )
        self._refused_changes = RefusedChanges()
        self._health = Health()
        self._store: Store | None = None
        self._recorder: VersionRecorder | None = None
        self._members: MemberKeeper | None = None
        self._publisher: Publisher | None = None
        self._functions: PluginFunctions | None = None
        self._audit: AuditLog | None = None
        self._audit_heads: HeadKeeper | None = None
        # Either this process serves xDS, with `_discovery` and `_xds`, or worker processes do.
        self._discovery: Discovery | None = None
        self._xds: Serving | None = None
        self.workers: Supervisor | None = None
        # Sockets that reserve the xDS port for the workers while none of them listens.
        self._reserved: list[socket.socket] = []
        self._api: grpc.aio.Server | None = None
        self._metrics_server: MetricsServer | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the store and start the servers. After an error, close everything that was opened.

        Errors: those of the store; UNAVAILABLE / PORT_TAKEN; INVALID_ARGUMENT for an address that can't be listened on.
        """
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
            **({"metrics": str(Address(self.config.metrics.host, self.metrics_port))} if self.config.metrics else {}),
            data=str(self.config.data),
            history=self._store.history_id if self._store is not None else "",
            **({"workers": self.config.workers} if self.config.workers else {}),
            revision=self.fleet.revision,
        )

    async def _start(self) -> None:
        config = self.config
        security = ApiSecurity(config)
        config.check_open()
        for listener in config.listeners:
            if listener.open:
                log.warning("reachable from other machines without TLS", port=listener.name, address=str(listener.address))
        self._store = store = await _opened_store(config)
        functions = self._functions = _functions(config)
        compiler = CachingCompiler(Compiler(functions))
        recorder = VersionRecorder(self.versions, store.records, functions=functions)
        await recorder.load(store.head.value.number)
        self._recorder = recorder
        publisher = Publisher(store.head, compiler, self._publish, recorder.served)
        publisher.publish()
        self._publisher = publisher
        self._members = members = MemberKeeper(self.fleet, store.records, self.events.members_changed)
        await members.load()
        blocks = BlockKeeper(store.records, self._block)
        await blocks.load()
        # Also with workers, which read the files themselves: wrong files are found before anything serves.
        tls = TlsFiles(paths) if (paths := _tls_paths(config)) is not None else None
        limits = StreamLimits(
            config.max_streams_per_node,
            config.max_names_per_stream,
            config.max_stream_age,
            resource_ttl=round(config.resource_ttl),
            load_report_interval=config.load_report_interval,
        )
        await self._open_audit(store)
        interceptors = self._interceptors(security.interceptors)
        self._api = api = grpc.aio.server(options=API_OPTIONS, interceptors=interceptors)
        diffs = DiffCache()
        prober = Prober(enabled=config.probe, local=config.is_local)
        writer = Writer(store, compiler, self._transitions, diffs=diffs, prober=prober, functions=functions)
        self._register(api, writer, store, members, blocks)
        self.api_port = listen(api, config.api, "api", security.credentials)
        if config.metrics is not None:
            self._serve_metrics(config.metrics)
        run_xds = await self._start_xds(publisher, recorder, limits, diffs, Access(tls, blocks.clients))
        purger = KeyPurger(writer, store.records, config.keep_withdrawn_keys)
        runs = (publisher.run(), run_xds, recorder.run(), members.run(), purger.run(), *security.watches())
        self._tasks = [asyncio.create_task(run) for run in runs]
        if self._audit is not None and self._audit_heads is not None:
            self._tasks += [asyncio.create_task(r) for r in (self._audit.run(), self._audit_heads.run(store.head))]
        if tls is not None and self._discovery is not None:
            self._tasks.append(asyncio.create_task(tls.watch(self._discovery.access_changed)))
        await api.start()

    async def _open_audit(self, store: Store) -> None:
        """Open the audit log, unless it is off. Errors: those of `AuditFiles` and of the store."""
        config = self.config
        if (directory := config.audit_directory) is None:
            return
        export = export_to(config.audit_export) if config.audit_export else None
        self._audit = audit = await open_log(directory, config.audit_megabytes * 1_000_000, export)
        self._audit_heads = HeadKeeper(audit, store.records)
        await self._audit_heads.start()

    def _interceptors(self, access: Sequence[Any]) -> list[Any]:
        """Return the interceptors of the operator API, the outermost first (`api/audit_interceptor.py`)."""
        status = StatusInterceptor(self._refused_changes.refused)
        if self._audit is None:
            return [status, *access]
        return [status, AuditOutcome(self._audit), *access, AuditAttempt(self._audit)]

    async def _start_xds(
        self, publisher: Publisher, recorder: VersionRecorder, limits: StreamLimits, diffs: DiffCache, access: Access
    ) -> Coroutine[Any, Any, None]:
        """Serve xDS, in this process or in workers. Return what must run meanwhile."""
        config = self.config
        if config.workers:
            settings = WorkerSettings(limits, config.xds_transport, config.log_format, config.log_level, _tls_paths(config))
            self.workers = Supervisor(
                config.workers, publisher.published, self.events.report, self.fleet.streams_of, settings, self.versions
            )
            self.workers.block(access.blocked)
            recorder.on_changes, recorder.on_removed = self.workers.send_versions, self.workers.send_removed
            self.xds_port, self._reserved = reserve(config.xds, "xds")
            if publisher.published.value is not None:
                await self.workers.start(str(Address(config.xds.host, self.xds_port)))
            return self._run_workers(self.workers, publisher)
        self._discovery = Discovery(
            publisher.published,
            self.events.report,
            limits,
            Context(diffs, self.versions),
            lambda: publisher.problem,
            access,
        )
        check_free(config.xds, "xds")
        host, port = config.xds.host, config.xds.port
        try:
            self._xds = await serve(self._discovery, host, port, limits, transport=config.xds_transport, tls=access.tls)
        except OSError:
            raise port_taken(config.xds, "xds") from None
        self.xds_port = self._xds.port
        return self._discovery.run()

    async def _run_workers(self, workers: Supervisor, publisher: Publisher) -> None:
        """Send revisions to the workers, until cancelled. Start them first if nothing could be published before."""
        if not workers.workers:
            await publisher.published.newer(0)
            await workers.start(str(Address(self.config.xds.host, self.xds_port)))
        await workers.run()

    def _publish(self, head: Head) -> None:
        self.events.publish(head)
        if self._recorder is not None:
            self._recorder.published(head)

    def _serve_metrics(self, address: Address) -> None:
        check_free(address, "metrics")
        try:
            self._metrics_server = MetricsServer(self.metrics, address.host, address.port)
        except OSError:
            raise port_taken(address, "metrics") from None
        self.metrics_port = self._metrics_server.port

    def _register(
        self, server: grpc.aio.Server, writer: Writer, store: Store, members: MemberKeeper, blocks: BlockKeeper
    ) -> None:
        changed = self.events.changed
        services = add_services(server, writer, store)
        revision_service_pb2_grpc.add_RevisionServiceServicer_to_server(RevisionService(writer, store, changed), server)
        nodes = NodeService(changed, self._reconnect, self._describe, members.forget, self._adopt, blocks)
        node_service_pb2_grpc.add_NodeServiceServicer_to_server(nodes, server)
        server.add_generic_rpc_handlers((ClientStatus(changed, self._describe).handler(),))
        traffic = TrafficService(store, self.traffic, changed)
        traffic_service_pb2_grpc.add_TrafficServiceServicer_to_server(traffic, server)

        def observe() -> Observed:
            failure = writer.failure.message if writer.failure else ""
            not_served = self._publisher.problem if self._publisher is not None else ""
            return Observed(store.head.value, current_fleet(changed), self.traffic, failure, not_served)

        status = StatusService(observe)
        status_service_pb2_grpc.add_StatusServiceServicer_to_server(status, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        ours = (revision_service_pb2, node_service_pb2, traffic_service_pb2, status_service_pb2)
        files = (*ours, csds_pb2, health_pb2)
        services += [s.full_name for f in files for s in f.DESCRIPTOR.services_by_name.values()]
        reflection.enable_server_reflection([*services, reflection.SERVICE_NAME], server)

    def _block(self, clients: frozenset[str]) -> None:
        if self.workers is not None:
            self.workers.block(clients)
        elif self._discovery is not None:
            self._discovery.block(clients)

    async def _reconnect(self, node_id: str) -> int:
        if self.workers is not None:
            return await self.workers.reconnect(node_id)
        return self._discovery.reconnect(node_id) if self._discovery is not None else 0

    async def _adopt(self, node_id: str) -> int:
        if self.workers is not None:
            return await self.workers.adopt(node_id)
        return self._discovery.adopt(node_id) if self._discovery is not None else 0

    async def _describe(self, node_id: str) -> list[ResourceStatus]:
        if self.workers is not None:
            return await self.workers.describe(node_id)
        return await self._discovery.describe(node_id) if self._discovery is not None else []

    async def stop(self, grace: float | None = None) -> None:
        """Stop: wait up to `grace` seconds for calls in progress, end the streams, and close the store last.

        If `grace` is None, use the config's value.
        """
        grace = self.config.grace if grace is None else grace
        await self._health.enter_graceful_shutdown()
        if self._members is not None:
            await self._members.close()
        if self._discovery is not None:
            self._discovery.close()
        self.events.close()
        servers = (self._api, self._xds, self.workers, self._metrics_server)
        await asyncio.gather(*(server.stop(grace) for server in servers if server is not None))
        self._refused_changes.close()
        for sock in self._reserved:
            sock.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._recorder is not None:
            await self._recorder.close()
        if self._functions is not None:
            self._functions.close()
        if self._audit_heads is not None:
            await self._audit_heads.close()
        if self._store is not None:
            await self._store.close()
        self._audit = self._audit_heads = None
        self._tasks, self._reserved = [], []
        self._api = self.workers = self._xds = self._metrics_server = None
        self._store = self._recorder = self._members = self._publisher = self._functions = None

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, and stop. A second signal ends the process at once.

        Errors: those of `start`.
        """
        signalled = asyncio.Event()
        loop = asyncio.get_running_loop()
        # Before the start, because a service manager may send SIGTERM as soon as the server answers.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signalled.set)
        waiting = asyncio.create_task(signalled.wait())
        try:
            await self.start()
            # The objects that exist now stay, so the garbage collector skips them. It runs less often than by default, because
            # streams allocate many objects.
            gc.freeze()
            gc.set_threshold(20_000, 20, 20)
            await asyncio.wait([waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            ended_tasks = [task for task in self._tasks if task.done()]
            if self._api is not None:
                log.info("stopping", grace=self.config.grace)
                await self.stop()
                log.info("stopped")
        for task in ended_tasks:
            task.result()  # raises the error that ended the task


async def _opened_store(config: Config) -> SqliteStore:
    """Open the store, and log what an operator should know about it. Errors: those of the store."""
    keys = key_source(config.data, config.secret_key_file, text=config.secret_key, command=config.secret_key_command)
    store = await open_store(config.data, keys, init=config.init)
    _log_upkeep(store.upkeep)
    if not store.head.value.number:
        event = "new store: started a new history, without a revision" if store.created else "the store has no revision yet"
        log.warning(event, data=str(config.data.absolute()), history=store.history_id)
    return store


def _log_upkeep(upkeep: Upkeep) -> None:
    """Log what was done with the private keys and MACs of the store when it was opened."""
    if upkeep.moved:
        log.info("private keys moved out of the history", keys=upkeep.moved, sealing_key=upkeep.sealed_with)
    if upkeep.resealed:
        log.info("private keys sealed anew", keys=upkeep.resealed, sealing_key=upkeep.sealed_with)
    if upkeep.new_macs and not upkeep.had_macs and not upkeep.is_new_store:
        log.warning(
            "the rows of the store had no MACs and were given them: changes that another program made before are not found",
            sealing_key=upkeep.sealed_with,
        )


def _functions(config: Config) -> PluginFunctions:
    """Return the functions that patches name: of the installed plug-in, and of those before. Errors: INVALID_ARGUMENT."""
    plugin = installed(config.patches)
    functions = PluginFunctions(PluginStore(config.data / "patch_functions"), plugin)
    if plugin is not None:
        log.info("plug-in for patches", hash=plugin.hash, files=len(plugin.files))
        if missing := unenforced():
            log.warning("functions of patches are not confined", reason=missing)
    return functions


def _tls_paths(config: Config) -> TlsPaths | None:
    """Return the files of TLS on the xDS port; None without TLS."""
    cert, key, client_ca, rules = config.xds_tls_cert, config.xds_tls_key, config.xds_client_ca, config.xds_identities
    if cert is None or key is None or client_ca is None or rules is None:
        return None
    return TlsPaths(cert, key, client_ca, rules, config.xds_crl)
