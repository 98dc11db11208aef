"""The protocol cores alone: the cost of a stream in them and in the fleet, without sockets.

One client is simulated until it is in sync. Then a thousand others repeat its requests, each on its own stream. They are ADS
clients behind one listener, with as many scopes and route tables as models, and twice as many clusters and endpoints. Times
are the CPU of this process's one thread. "Cold sync" is everything that a client is sent first, with all of its requests
handled. Each client names resources in its own order (except in the ACK of a switch over SotW, where all use the same). The
first stream of a snapshot does work that the others share; it is not counted.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from bench.measure import environment, table
from controlplane.compiler import Compiler
from controlplane.domain import Endpoint, Gateway, HeaderRouting, Model, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.revision import Head
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.fleet import Fleet
from controlplane.observers.folds import FleetFold
from controlplane.observers.log import FleetLog
from controlplane.reconciler.report import EventDispatcher
from controlplane.snapshot import Audience, Snapshot
from controlplane.xds.events import AudienceAssigned, Event, StreamEvent, StreamOpened
from controlplane.xds.memo import MemoisedStream, TransitionMemo
from controlplane.xds_server.variants import DELTA, SOTW, Variant

STREAMS = 1_000
# The number of orders in which clients name the same resources.
_ORDERS = 20
AUDIENCE = Audience(("public",))
WILDCARD = (CLUSTER, LISTENER, SCOPED_ROUTES)
SECONDS, MICRO = 1e9, 1e3


def state(models: int) -> State:
    """Return one gateway, and this many models with two versions of two endpoints each."""
    gateway = Gateway("public", port=8080, routing=HeaderRouting("x-model"))
    objects: dict[str, Any] = {"gateways/public": gateway}
    for i in range(models):
        name = f"model-{i:04}"
        ends = (Endpoint("10.0.0.1", 8000 + i), Endpoint("10.0.0.2", 8000 + i))
        versions = (Version("blue", ends), Version("green", ends))
        objects[f"models/{name}"] = Model(name, ("public",), versions, {"blue": 10_000})
    return State().applied(Changes(objects))


class History:
    """A series of snapshots. Each differs from the previous one by a switch of one model."""

    def __init__(self, models: int) -> None:
        self._state, self._compiler, self._models = state(models), Compiler(), models
        self.newest = self._compiler.compile(self._state, NO_LIVE_ENDPOINTS, AUDIENCE, 1)

    def switch(self) -> Snapshot:
        """Switch a model, a different one each time, and return the new snapshot."""
        revision = self.newest.revision + 1
        model = self._state.models[f"model-{revision * 7 % self._models:04}"]
        (live,) = model.split
        moved = replace(model, split={"green" if live == "blue" else "blue": 10_000})
        self._state = self._state.applied(Changes({f"models/{model.name}": moved}))
        self.newest = self._compiler.compile(self._state, NO_LIVE_ENDPOINTS, AUDIENCE, revision, self.newest)
        return self.newest


@dataclass(slots=True)
class Script:
    """A client's requests until it is in sync, serialised. Nonces are the same on every stream."""

    requests: list[bytes] = field(default_factory=list)


class SimulatedClient:
    """A simulated client: it ACKs responses, and asks for the resources that they name."""

    def __init__(self, variant: Variant, node: str) -> None:
        self.delta = variant is DELTA
        self._node = base_pb2.Node(id=node, cluster="edge", user_agent_name="envoy")
        self.nonces: dict[str, str] = {}
        self.names: dict[str, list[str]] = {}
        self._versions: dict[str, str] = {}

    def first(self) -> bytes:
        return self._ask(CLUSTER)

    def answer(self, data: bytes) -> Iterator[bytes]:
        """Return the requests after a response. Like an Envoy, it asks for further resources before it ACKs."""
        kind = discovery_pb2.DeltaDiscoveryResponse if self.delta else discovery_pb2.DiscoveryResponse
        response: Any = kind.FromString(data)
        type_url = response.type_url
        new = type_url not in self.nonces
        self.nonces[type_url] = response.nonce
        if not self.delta:
            self._versions[type_url] = response.version_info
        if new and type_url == CLUSTER:
            yield self._ask(ENDPOINTS, _names(response, self.delta, "config.cluster.v3.cluster_pb2", "Cluster", "name"))
        if new and type_url == ENDPOINTS:
            yield self._ask(LISTENER)
        if new and type_url == LISTENER:
            yield self._ask(SCOPED_ROUTES)
        if new and type_url == SCOPED_ROUTES:
            scope = ("config.route.v3.scoped_route_pb2", "ScopedRouteConfiguration", "route_configuration_name")
            yield self._ask(ROUTES, _names(response, self.delta, *scope))
        yield self._ack(type_url)

    def _ask(self, type_url: str, names: list[str] | None = None) -> bytes:
        self.names[type_url] = names or []
        if self.delta:
            request: Any = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url)
            request.resource_names_subscribe.extend(names or [])
        else:
            request = discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=names)
        if self._node is not None:
            request.node.CopyFrom(self._node)
            self._node = None
        done: bytes = request.SerializeToString()
        return done

    def _ack(self, type_url: str) -> bytes:
        if self.delta:
            request: Any = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=self.nonces[type_url])
        else:
            request = discovery_pb2.DiscoveryRequest(
                type_url=type_url,
                response_nonce=self.nonces[type_url],
                version_info=self._versions[type_url],
                resource_names=self.names[type_url],
            )
        done: bytes = request.SerializeToString()
        return done


def _names(response: Any, delta: bool, module: str, kind: str, of: str) -> list[str]:
    message = getattr(importlib.import_module(f"envoy.{module}"), kind)
    bodies = [r.resource.value if delta else r.value for r in response.resources]
    return sorted({getattr(message.FromString(body), of) for body in bodies})


@dataclass(slots=True)
class Figures:
    """Microseconds of CPU per stream; memory is in bytes per stream."""

    cold: float = 0.0
    cold_fleet: float = 0.0
    offer: float = 0.0
    ack: float = 0.0
    fleet: float = 0.0
    memory: float = 0.0

    def cells(self) -> list[str]:
        memory = f"{self.memory / 1024:.1f} KiB"
        return [*(f"{v:,.1f} µs" for v in (self.cold, self.cold_fleet, self.offer, self.ack, self.fleet)), memory]


class Bench:
    """Streams of one variant on one history, and the fleet that they report to."""

    def __init__(self, variant: Variant, models: int, streams: int = STREAMS) -> None:
        self.variant, self.streams = variant, streams
        self.history = History(models)
        self.fleet = Fleet()
        self.events = EventDispatcher(self.fleet, [FleetFold(self.fleet), FleetLog(self.fleet)])
        self.figures = Figures()
        self.cores: list[Any] = []
        self.memo = TransitionMemo()
        self.numbers = 0

    def run(self, switches: int) -> Figures:
        self._connect(1)  # does the work that the others share
        before = _rss()
        self._connect(self.streams)
        self.figures.memory = (_rss() - before) / self.streams
        taken = [self._switch() for _ in range(switches)]
        self.figures.offer, self.figures.ack, self.figures.fleet = map(statistics.median, zip(*taken, strict=True))
        return self.figures

    def _connect(self, streams: int) -> None:
        """Open streams, and run each until it is in sync."""
        snapshot = self.history.newest
        self.events.publish(Head(number=snapshot.revision, state=State()))
        scripts = [self._script(snapshot, f"node-{self.numbers + i}") for i in range(streams)]
        reported: list[Sequence[StreamEvent]] = []

        def connect() -> None:
            receive = self._receive
            for script in scripts:
                core = MemoisedStream(self.variant.core, memo=self.memo)
                receive(core, script[0])
                events = list(core.offer(snapshot))
                core.to_send()
                for data in script[1:]:
                    events += receive(core, data)
                    core.to_send()
                self.cores.append(core)
                reported.append(events)

        self.figures.cold = _cpu(connect) / streams
        identified = [self._receive(MemoisedStream(self.variant.core, memo=self.memo), s[0]) for s in scripts]

        def fold() -> None:
            report = self.events.report
            for i, events in enumerate(reported):
                stream = self.numbers + i
                report(stream, StreamOpened("127.0.0.1:1", self.variant.name))
                for who in identified[i]:
                    report(stream, who)
                report(stream, AudienceAssigned(AUDIENCE))
                for event in events:
                    report(stream, event)

        self.figures.cold_fleet = _cpu(fold) / streams
        self.numbers += streams
        held = self.fleet.holding(snapshot.revision)
        assert held == self.numbers, f"{held} of {self.numbers} hold it"

    # The requests of the first client.
    _requests: list[bytes] | None = None

    def _script(self, snapshot: Snapshot, node: str) -> list[bytes]:
        """Return the requests of a client until it is in sync."""
        if self._requests is None:
            core, client = MemoisedStream(self.variant.core, memo=self.memo), SimulatedClient(self.variant, node)
            requests_sent = [client.first()]
            self._receive(core, requests_sent[0])
            core.offer(snapshot)
            waiting = core.to_send()
            while waiting:
                for request in client.answer(waiting.pop(0)):
                    requests_sent.append(request)
                    self._receive(core, request)
                    waiting += core.to_send()
            self._requests, self.client = requests_sent, client
            orders = [[self._shuffled(data, rng) for data in requests_sent] for rng in map(random.Random, range(_ORDERS))]
            self._next_order = itertools.cycle(orders)
        first = SimulatedClient(self.variant, node).first()
        return [first, *next(self._next_order)[1:]]

    def _shuffled(self, data: bytes, rng: random.Random) -> bytes:
        """Return a request with its names in another order, as Envoys send them."""
        request = self.variant.parse(data)
        names = request.resource_names_subscribe if self.variant is DELTA else request.resource_names
        shuffled = rng.sample(list(names), len(names))
        del names[:]
        names.extend(shuffled)
        return bytes(request.SerializeToString())

    def _receive(self, core: Any, data: bytes) -> list[Event]:
        events: list[Event] | None = core.recall(data)
        if events is None:
            events = core.receive(self.variant.parse(data), data)
        return events or []

    def _switch(self) -> tuple[float, float, float]:
        snapshot = self.history.switch()
        self.events.publish(Head(number=snapshot.revision, state=State()))
        sent: list[list[bytes]] = []
        probe = self.cores[0]
        probe.offer(snapshot)  # does the work that the others share
        (data,) = probe.to_send()
        request, *more = list(self.client.answer(data))
        assert not more
        others = self.cores[1:]

        def offer() -> None:
            for core in others:
                core.offer(snapshot)
                sent.append(core.to_send())

        offered = _cpu(offer)
        assert all(len(messages) == 1 for messages in sent)
        reported: list[Sequence[StreamEvent]] = []

        def ack() -> None:
            receive = self._receive
            for core in others:
                reported.append(receive(core, request))
                core.to_send()

        first_events = self._receive(probe, request)
        acked = _cpu(ack)

        def fold() -> None:
            report = self.events.report
            for stream, events in enumerate(reported, 1):
                for event in events:
                    report(stream, event)

        for event in first_events:
            self.events.report(0, event)
        folded = _cpu(fold)
        assert self.fleet.holding(snapshot.revision) == len(self.cores)
        n = len(others)
        return offered / n, acked / n, folded / n


def _cpu(work: Callable[[], None]) -> float:
    """Return the microseconds of CPU that `work` takes."""
    gc.collect()
    before = time.process_time_ns()
    work()
    return (time.process_time_ns() - before) / MICRO


def _rss() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


async def run(*, quick: bool) -> tuple[dict[str, Any], str]:
    """Measure, and return the results and a page about them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    sizes, streams, switches = ([10, 100], 100, 3) if quick else ([10, 100, 1_000], STREAMS, 7)
    header = ["", "models", "cold sync", "of it in the fleet", "offer of a switch", "its ACK", "in the fleet", "memory"]
    rows: list[list[str]] = []
    results: dict[str, Any] = {}
    for variant in (DELTA, SOTW):
        for models in sizes:
            figures = Bench(variant, models, streams).run(switches)
            rows.append([variant.name, f"{models:,}", *figures.cells()])
            results.setdefault(variant.name, {})[models] = {n: round(getattr(figures, n), 2) for n in Figures.__slots__}
            print(*rows[-1])
    about = __doc__.partition("\n\n")[2].strip() if __doc__ else ""
    page = "\n\n".join(["# The cores", about, f"## A stream, of {streams:,}", table(header, rows)])
    return {"environment": environment(), "streams": streams, "variants": results}, page
