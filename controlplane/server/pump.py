"""One xDS stream: a pump between the client and its protocol core.

What the client says goes into the core; what the core has to say goes out when the client takes it. A core is told of the
newest world only, so a client that does not read costs its own stream and nothing else: nothing queues for it here.

One of these things happens to a stream, and each wakes the core once:

    the client says something    `Stream.receive`, and the node's other streams look again
    there is a newer world       `Stream.offer`
    another stream moved on      `Stream.again`
    it has had time enough       `Stream.quiet`

Messages are bytes on the way in and out. The cores serialise, and what can't be parsed is answered with a status that fits.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from controlplane.compiler import audience
from controlplane.errors import Code, Error
from controlplane.fleet import Report, Targeted
from controlplane.latest import Latest
from controlplane.model import Gateway
from controlplane.server.limits import Budget, Limits
from controlplane.server.siblings import Siblings
from controlplane.snapshot import Audience
from controlplane.world import World
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Event, Identified
from controlplane.xds.sotw import SotwStream

log = structlog.get_logger("xds")

# A client that comes back says within this time of its first request what it holds, on all its streams, seconds.
_QUIET = 2.0

# Delta: more names than these are taken in so many at a time, so that others are seen to in between.
_PIECE = 5_000

# A stream whose newest offer took longer than this is offered the next world after the others. Seconds.
_DEAR = 0.005

_MOST_WAITING = 64
_MOST_BYTES = 8 * 1024 * 1024

# Not in the stubs.
_EOF: Any = vars(grpc.aio)["EOF"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to speak xDS."""

    name: str
    # Takes the one type that the stream is about; "" on ADS.
    core: Callable[[str], DeltaStream | SotwStream]
    parse: Callable[[bytes], Any]
    # How many names a request carries.
    names: Callable[[Any], int]
    # Requests that mean the same one after the other.
    pieces: Callable[[Any], list[Any]]


def _delta_names(request: Any) -> int:
    return len(request.resource_names_subscribe) + len(request.initial_resource_versions)


def _delta_pieces(request: Any) -> list[Any]:
    names = request.resource_names_subscribe
    # What a client says it holds counts on the first request of a type only, together with its names.
    if len(names) <= _PIECE or request.initial_resource_versions:
        return [request]
    first, rest = list(names[:_PIECE]), list(names[_PIECE:])
    del request.resource_names_subscribe[:]
    request.resource_names_subscribe.extend(first)
    more = (rest[i : i + _PIECE] for i in range(0, len(rest), _PIECE))
    make = discovery_pb2.DeltaDiscoveryRequest
    return [request, *(make(type_url=request.type_url, resource_names_subscribe=names) for names in more)]


def _sotw_names(request: Any) -> int:
    return len(request.resource_names)


def _whole(request: Any) -> list[Any]:
    return [request]


DELTA = Variant("delta", DeltaStream, discovery_pb2.DeltaDiscoveryRequest.FromString, _delta_names, _delta_pieces)
SOTW = Variant("sotw", SotwStream, discovery_pb2.DiscoveryRequest.FromString, _sotw_names, _whole)


class Pump:
    """One stream. `report` is told what becomes of it; `nodes` are the streams that are open, by node id."""

    def __init__(
        self,
        variant: Variant,
        type_url: str,
        worlds: Latest[World | None],
        report: Callable[[Report], None],
        nodes: dict[str, Siblings],
        limits: Limits,
    ) -> None:
        self.core = variant.core(type_url)
        self._variant = variant
        self._worlds = worlds
        self._report = report
        self._nodes = nodes
        self._limits = limits
        # All streams of the client, this one included; None until the client has said who it is.
        self._siblings: Siblings | None = None
        self._id = ""
        # None until the client has said who it is; it is offered nothing before.
        self._client: Identified | None = None
        # What it is served, which follows from these gateways; and what was reported of it.
        self._audience: Audience | None = None
        self._gateways: Mapping[str, Gateway] = {}
        self._targeted: Targeted | None = None
        # What its requests cost; and whether its newest offer took long.
        self._budget = Budget(asyncio.get_running_loop().time())
        self.dear = False
        # What the client has not taken yet. At most what the core says unasked (one message a type), and answers to what the
        # client asks: at _MOST_WAITING messages, or _MOST_BYTES of them, it is not listened to any more, until it has taken
        # them.
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._wake, self._taken = asyncio.Event(), asyncio.Event()
        # Set once, when the stream is to end; the error that ends it, None for a good end.
        self._end: asyncio.Future[Error | None] = asyncio.get_running_loop().create_future()
        self._timers: list[asyncio.TimerHandle] = []

    async def run(self, context: Any) -> None:
        """Serves the stream until the client leaves, the server stops or something is wrong. Errors: what was wrong."""
        self._after(self._limits.greeting, self._check_greeted)
        if self._limits.max_stream_age:
            self._after(self._limits.max_stream_age * random.uniform(0.9, 1.1), self.end)
        tasks: list[asyncio.Task[None]] = []
        try:
            # On their own: gRPC takes headers for unsent until the write that they went with is through. A stream that ends
            # before that would send them again with its status, which fails, and the client would not learn of the end.
            with self._contained():
                await context.send_initial_metadata(())
            tasks = [asyncio.create_task(self._until_end(work(context))) for work in (self._read, self._write)]
            error = await self._end
        finally:
            for timer in self._timers:
                timer.cancel()
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:  # gRPC may cancel this while it waits
                self._leave()
        if error is not None:
            raise error

    def end(self, error: Error | None = None) -> None:
        """Ends the stream; well, when there is no error."""
        if not self._end.done():
            self._end.set_result(error)

    def offer(self) -> None:
        """Takes in the newest world."""
        began = asyncio.get_running_loop().time()
        with self._contained(), self._together():
            self._offer()
        self.dear = asyncio.get_running_loop().time() - began > _DEAR

    def again(self) -> None:
        """Another stream of the node has moved on."""
        with self._contained():
            self._tell(self.core.again())

    def _offer(self) -> None:
        world, client = self._worlds.value, self._client
        if world is None or client is None:
            return
        if self._audience is None or world.gateways is not self._gateways:
            self._gateways, self._audience = world.gateways, audience(world.head.state, client)
        target = self._audience
        note = world.note(target)
        if self._targeted is None or self._targeted.note != note or self._targeted.audience != target:
            self._targeted = Targeted(target, note)
            self._report(self._targeted)
        self._tell(self.core.offer(world.snapshot(target)))

    def _quiet(self) -> None:
        with self._contained(), self._together():
            self._tell(self.core.quiet())

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, call))

    def _check_greeted(self) -> None:
        if self._siblings is None:
            message = f"nothing was asked within {self._limits.greeting:g} s of opening the stream"
            self.end(Error(Code.FAILED_PRECONDITION, "NOTHING_ASKED", message))

    def _join(self, node: Any) -> None:
        """The client says who it is. Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED when it may not be served."""
        streams = self._nodes.get(node.id)
        self._limits.admit(node, len(streams) if streams is not None else 0)
        self._id = node.id
        self._siblings = self._nodes.setdefault(node.id, streams or Siblings(self._limits.linger))
        self._siblings.join(self)

    def _leave(self) -> None:
        if self._siblings is not None:
            self._siblings.leave(self)
            if not self._siblings:
                del self._nodes[self._id]

    async def _read(self, context: Any) -> None:
        clock = asyncio.get_running_loop().time
        while (data := await context.read()) is not _EOF:
            began = clock()
            try:
                request = self._variant.parse(data)
            except DecodeError:
                raise Error(Code.INVALID_ARGUMENT, "NOT_A_REQUEST", "the message is not a discovery request") from None
            self._limits.check_names(self._variant.names(request))
            if self._siblings is None:
                self._join(request.node)
            pieces = self._variant.pieces(request)
            for piece in pieces:
                self._take(piece)
                ended = clock()
                pause = self._budget.spend(ended - began, ended)
                if pause or len(pieces) > 1:
                    await asyncio.sleep(pause)
                while len(self._waiting) >= _MOST_WAITING or self._waiting_bytes >= _MOST_BYTES:
                    self._taken.clear()
                    await self._taken.wait()
                began = clock()

    def _take(self, request: Any) -> None:
        with self._together():
            self.core.now = asyncio.get_running_loop().time()
            self._tell(self.core.receive(request))
            self._limits.check_names(self.core.names)
            if self._siblings is not None:
                self._siblings.moved(self)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Around what may make a stream wait for its siblings, or free them."""
        if self._siblings is not None:
            self._siblings.tick()
        yield
        if self._siblings is not None:
            self._siblings.offered()

    async def _write(self, context: Any) -> None:
        while await self._wake.wait():
            self._wake.clear()
            while self._waiting:
                message = self._waiting.popleft()
                self._waiting_bytes -= len(message)
                await context.write(message)
            self._taken.set()

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            self._report(event)
            if isinstance(event, Identified):
                self._client = event
                self._after(_QUIET, self._quiet)
                self._offer()
        if messages := self.core.to_send():
            self._waiting.extend(messages)
            self._waiting_bytes += sum(map(len, messages))
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
