"""xDS over gRPC: a pump between each client's stream and its protocol core.

What the client says goes into the core; what the core has to say goes out when the client takes it. A core is told of the
newest world only, so a client that does not read costs its own stream and nothing else: nothing queues for it here.

Messages are bytes on the way in and out. The cores serialise, and what can't be parsed is answered with a status that fits.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

import grpc
import structlog
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from controlplane.compiler import audience
from controlplane.errors import Code, Error
from controlplane.fleet import Closed, Opened, Report, Stands, StreamId, Targeted
from controlplane.latest import Latest
from controlplane.snapshot import Snapshot
from controlplane.world import World
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Event, Identified, Recovered, Refused
from controlplane.xds.sotw import SotwStream

log = structlog.get_logger("xds")

# A client that wants something asks for it within this time of its first request, seconds.
_QUIET = 5.0

_MOST_WAITING = 64

# A new world reaches this many streams before the event loop sees to other things.
_BATCH = 50

# Not in the stubs.
_EOF: Any = vars(grpc.aio)["EOF"]

_ADS = "envoy.service.discovery.v3.AggregatedDiscoveryService"

# Largest request: 100,000 names of resources that a client says it has.
MAX_REQUEST_BYTES = 16 * 1024 * 1024

SERVER_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    # A second server on the port is told so, instead of being given half of the connections.
    ("grpc.so_reuseport", 0),
    # A fleet that comes back all at once is let in; gRPC's default turns away what comes after the first 1,000.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    # A peer that vanished without a word is found out within 40 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Envoys ping every 30 s, and some are set up to do it more often: none is sent away for it.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
]


class Core(Protocol):
    """A stream of `controlplane.xds`."""

    def receive(self, request: Any) -> list[Event]: ...
    def offer(self, snapshot: Snapshot) -> list[Event]: ...
    def quiet(self) -> list[Event]: ...
    def stands(self, type_url: str) -> bool: ...
    def to_send(self) -> list[bytes]: ...


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to speak xDS."""

    name: str
    core: Callable[[], Core]
    parse: Callable[[bytes], Any]


DELTA = Variant("delta", DeltaStream, discovery_pb2.DeltaDiscoveryRequest.FromString)
SOTW = Variant("sotw", SotwStream, discovery_pb2.DiscoveryRequest.FromString)


class Pump:
    """One stream. `report` is told what becomes of it."""

    def __init__(self, variant: Variant, worlds: Latest[World | None], report: Callable[[Report], None]) -> None:
        self._core = variant.core()
        self._parse = variant.parse
        self._worlds = worlds
        self._report = report
        # None until the client has said who it is; it is offered nothing before.
        self._client: Identified | None = None
        # What it was told that it is served.
        self._targeted: Targeted | None = None
        # Types of which a NACK stands.
        self._refused: set[str] = set()
        # What the client has not taken yet. At most what the core says unasked (one message a type), and answers to what the
        # client asks: at _MOST_WAITING messages it is not listened to any more, until it has taken them.
        self._waiting: deque[bytes] = deque()
        self._wake, self._taken = asyncio.Event(), asyncio.Event()
        # Set once, when the stream is to end; the error that ends it, None for a good end.
        self._end: asyncio.Future[Error | None] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, context: Any) -> None:
        """Serves the stream until the client leaves, the server stops or something is wrong. Errors: what was wrong."""
        tasks = [asyncio.create_task(self._until_end(work(context))) for work in (self._read, self._write)]
        try:
            error = await self._end
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if error is not None:
            raise error

    def end(self, error: Error | None = None) -> None:
        """Ends the stream; well, when there is no error."""
        if not self._end.done():
            self._end.set_result(error)

    def offer(self) -> None:
        """Takes in the newest world."""
        with self._contained():
            self._offer()

    def _offer(self) -> None:
        world, client = self._worlds.value, self._client
        if world is None or client is None:
            return
        target = audience(world.head.state, client)
        targeted = Targeted(target, world.note(target))
        if targeted != self._targeted:
            self._targeted = targeted
            self._report(targeted)
        self._tell(self._core.offer(world.snapshot(target)))
        for type_url in self._refused:
            if self._core.stands(type_url):
                self._report(Stands(type_url, world.revision))

    def _quiet(self) -> None:
        with self._contained():
            self._tell(self._core.quiet())

    async def _read(self, context: Any) -> None:
        while (data := await context.read()) is not _EOF:
            try:
                request = self._parse(data)
            except DecodeError:
                raise Error(Code.INVALID_ARGUMENT, "NOT_A_REQUEST", "the message is not a discovery request") from None
            self._tell(self._core.receive(request))
            while len(self._waiting) >= _MOST_WAITING:
                self._taken.clear()
                await self._taken.wait()

    async def _write(self, context: Any) -> None:
        while await self._wake.wait():
            self._wake.clear()
            while self._waiting:
                await context.write(self._waiting.popleft())
            self._taken.set()

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            self._report(event)
            if isinstance(event, Refused):
                self._refused.add(event.type_url)
            elif isinstance(event, Recovered):
                self._refused.discard(event.type_url)
            elif isinstance(event, Identified):
                self._client = event
                self._timer = asyncio.get_running_loop().call_later(_QUIET, self._quiet)
                self._offer()
        if messages := self._core.to_send():
            self._waiting.extend(messages)
            self._wake.set()

    async def _until_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Does one half of the stream's work; the stream ends when that does."""
        with self._contained():
            await work
        self.end()

    @contextmanager
    def _contained(self) -> Iterator[None]:
        """Whatever goes wrong inside ends this stream, and nothing else."""
        try:
            yield
        except Error as error:
            self.end(error)
        except Exception:
            log.exception("stream failed")
            self.end(Error(Code.INTERNAL, "INTERNAL", "something went wrong in the control plane; its log says what"))


class Discovery:
    """The xDS services, and every stream of theirs that is open."""

    def __init__(self, worlds: Latest[World | None], report: Callable[[StreamId, Report], None]) -> None:
        self._worlds = worlds
        self._report = report
        self._ids = itertools.count(1)
        self._pumps: dict[StreamId, Pump] = {}
        self._closing = False

    def handlers(self) -> list[grpc.GenericRpcHandler[Any, Any]]:
        """What a gRPC server serves."""
        methods = {
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._handler(DELTA)),
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self._handler(SOTW)),
        }
        return [grpc.method_handlers_generic_handler(_ADS, methods)]

    def _handler(self, variant: Variant) -> Callable[[Any, Any], Any]:
        async def serve(_: Any, context: Any) -> None:
            try:
                await self._serve(variant, context)
            except Error as error:
                await context.abort(grpc.StatusCode[error.code.name], error.message)

        return serve

    async def _serve(self, variant: Variant, context: Any) -> None:
        if self._closing or self._worlds.value is None:
            why = "is stopping" if self._closing else "has not loaded its state yet"
            raise Error(Code.UNAVAILABLE, "NOT_SERVING", f"the control plane {why}; try again")
        stream = next(self._ids)
        pump = Pump(variant, self._worlds, lambda event: self._report(stream, event))
        self._pumps[stream] = pump
        self._report(stream, Opened(peer(context.peer()), variant.name))
        try:
            await pump.run(context)
        finally:
            del self._pumps[stream]
            self._report(stream, Closed())

    async def run(self) -> None:
        """Offers each newest world to every stream, until it is cancelled."""
        seen = 0
        while True:
            seen = await self._worlds.newer(seen)
            for pumps in batches(list(self._pumps.values()), _BATCH):
                for pump in pumps:
                    pump.offer()
                await asyncio.sleep(0)

    def close(self) -> None:
        """Ends every stream well, and takes no new ones. Envoys keep what they have, and look for a control plane again."""
        self._closing = True
        for pump in self._pumps.values():
            pump.end()


T = TypeVar("T")


def batches(items: list[T], size: int) -> Iterable[list[T]]:
    """`items` in runs of `size`."""
    return (items[i : i + size] for i in range(0, len(items), size))


def peer(said: str) -> str:
    """`127.0.0.1:5000` for gRPC's `ipv4:127.0.0.1:5000`; `[::1]:5000` for its `ipv6:%5B::1%5D:5000`."""
    return unquote(said.partition(":")[2])
