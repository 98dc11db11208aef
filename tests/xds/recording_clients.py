"""Clients that behave at random, from a fixed seed, and a log of the responses that they receive (`recording.py`)."""

from __future__ import annotations

import hashlib
import importlib
import json
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from importlib.util import find_spec
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.errors import Error
from controlplane.snapshot import Audience, Resource, Snapshot

# In bddd395 the types are in `snapshot.py`.
_types = importlib.import_module(
    "controlplane.envoy_types" if find_spec("controlplane.envoy_types") else "controlplane.snapshot"
)
CLUSTER, ENDPOINTS, LISTENER, ROUTES = _types.CLUSTER, _types.ENDPOINTS, _types.LISTENER, _types.ROUTES
SCOPED_ROUTES, SECRET, ORDER = _types.SCOPED_ROUTES, _types.SECRET, _types.ORDER
TYPES = {"cds": CLUSTER, "eds": ENDPOINTS, "sds": SECRET, "lds": LISTENER, "srds": SCOPED_ROUTES, "rds": ROUTES}
SHORT = {url: short for short, url in TYPES.items()}
FEATURES = ("xds.config.supports-resource-ttl", "xds.config.resource-in-sotw")


@dataclass(frozen=True)
class Api:
    """The names of the cores' interface, which differ between commits."""

    # Called at the beginning of each conversation. Returns the function that makes a stream. Its arguments: kind (delta or
    # sotw), type URL, TTL, whether to use the memo.
    begin: Callable[[], Callable[[str, str, int, bool], Any]]
    # Makes the object that coordinates a node's streams.
    coordinate: Callable[[], Any]
    # Methods of a stream.
    assume_complete: str
    reconsider: str
    retry_in_parts: str
    # The attribute of a stream that refers to the object that coordinates it with others.
    coordination: str
    # Methods of that object: before a stream's first request; after a request; take out the streams that waited; set the time.
    before_first: str
    after_request: str
    overdue: str
    tick: str


class Log:
    """The lines of one conversation."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def events(self, events: Iterable[Any], who: str = "") -> None:
        """Log events: their types and the values of their fields, but not the names of the fields.

        Leaves out the events that commit bddd395 did not have.
        """
        for event in events:
            if type(event).__name__ == "Claimed":
                continue
            values = ascii(astuple(event))
            self.lines.append(f"{who}! {type(event).__name__} {values if len(values) < 200 else _hash(values.encode())}")

    def sent(self, data: bytes, nonce: str, type_url: str, who: str = "") -> None:
        """Log a response."""
        self.lines.append(f"{who}< {SHORT.get(type_url, type_url)} {len(data)} {_hash(data)} {nonce}")

    def error(self, error: Error, who: str = "") -> None:
        """Log an error, which ends the stream."""
        self.lines.append(f"{who}! {error.code.name} {error.reason} {error.message}")


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def resource(type_url: str, name: str, content: int, refs: Iterable[tuple[str, str]] = (), bad: bool = False) -> Resource:
    """Return a resource whose body contains its name, content and references."""
    body = {"name": name, "content": content, "refs": sorted([SHORT[t], n] for t, n in refs), "bad": bad}
    return Resource.of(type_url, name, json.dumps(body).encode(), refs)


class RandomSnapshots:
    """Makes random snapshots of a few models.

    `simple`: each route names one cluster, and each cluster one resource. With more, the recording of a node with several
    streams would differ between processes: a wait begins when a stream first looks for a resource, and it looks in the order
    of a set.
    """

    def __init__(self, rng: random.Random, simple: bool = False) -> None:
        self.rng, self.simple = rng, simple
        self.revision = 0
        # By type and name: the content, and whether a client refuses it.
        self.content: dict[tuple[str, str], tuple[int, bool]] = {}
        self.routes: dict[str, tuple[str, ...]] = {}
        self.spare: tuple[str, ...] = ()

    def next(self) -> Snapshot:
        """Return the next snapshot. It differs from the previous one in a few places."""
        rng = self.rng
        for _ in range(rng.choice((1, 1, 2, 4))):
            kind = rng.random()
            if kind < 0.45:
                name = rng.choice("mno")
                if rng.random() < 0.2:
                    self.routes.pop(name, None)
                else:
                    self.routes[name] = tuple(sorted(rng.sample("abcde", 1 if self.simple else rng.randint(1, 2))))
            elif kind < 0.6:
                self.spare = tuple(sorted(rng.sample("abcde", rng.randint(0, 2))))
            else:
                key = rng.choice(("cds", "cds", "eds", "sds", "lds", "srds", "rds")), rng.choice("abcdemno")
                self.content[key] = rng.randint(0, 2), rng.random() < 0.15
        return self._snapshot()

    def _snapshot(self) -> Snapshot:
        self.revision += 1
        parts: list[Resource] = []

        def add(short: str, name: str, *refs: tuple[str, str]) -> None:
            content, bad = self.content.get((short, name), (0, False))
            parts.append(resource(TYPES[short], name, content, refs, bad))

        used = sorted({*self.spare, *(c for clusters in self.routes.values() for c in clusters)})
        for name in used:
            # Some clusters contain their endpoints; some need a secret.
            refs = [(ENDPOINTS, name)] if name != "e" and not (self.simple and name == "a") else []
            secrets = [(SECRET, name)] if name == "a" or (name == "b" and not self.simple) else []
            add("cds", name, *refs, *secrets)
            if refs:
                add("eds", name)
            if secrets:
                add("sds", name)
        for name, clusters in sorted(self.routes.items()):
            add("srds", name, (ROUTES, name))
            add("rds", name, *((CLUSTER, c) for c in clusters))
        if self.routes:
            add("lds", "l", (SECRET, "tls"))
            add("sds", "tls")
            # For a client without scopes: its listeners name their routes.
            for name in sorted(self.routes):
                add("lds", f"api-{name}", (ROUTES, name))
        return Snapshot.of(self.revision, Audience(), parts)


class Stream:
    """The client's side of one stream: its subscriptions, its resources, and the responses to answer."""

    def __init__(self, log: Log, who: str, kind: str, core: Any) -> None:
        self.log, self.who, self.delta, self.core = log, who, kind == "delta", core
        self.inbox: deque[Any] = deque()
        self.outbox: deque[Any] = deque()
        self.nonces: dict[str, list[str]] = {}
        self.version: dict[str, str] = {}
        self.names: dict[str, set[str]] = {}
        # By type: for each name that it accepted, the version and the references.
        self.has: dict[str, dict[str, tuple[str, list[list[str]]]]] = {}
        self.over = False

    def do(self, method: str, *arguments: Any) -> None:
        """Call the core, and log its events and responses."""
        if self.over:
            return
        try:
            self.log.events(getattr(self.core, method)(*arguments) or (), self.who)
        except Error as error:
            self.log.error(error, self.who)
            self.over = True
        self.receive_all()

    def receive_all(self) -> None:
        """Take the responses of the core, and log them."""
        kind = discovery_pb2.DeltaDiscoveryResponse if self.delta else discovery_pb2.DiscoveryResponse
        for data in self.core.to_send():
            message = kind.FromString(data)
            self.log.sent(data, message.nonce, message.type_url, self.who)
            self.nonces.setdefault(message.type_url, []).append(message.nonce)
            self.inbox.append(message)

    def request(self, type_url: str, **fields: Any) -> Any:
        """Return a request. A SotW request has all names, and the newest nonce and version."""
        if self.delta:
            return discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, **fields)
        fields.setdefault("response_nonce", self.nonces.get(type_url, [""])[-1])
        names = sorted(self.names.get(type_url, ()))
        return discovery_pb2.DiscoveryRequest(
            type_url=type_url, resource_names=names, version_info=self.version.get(type_url, ""), **fields
        )

    def open(self, type_url: str, names: Iterable[str] = (), node: Any = None) -> None:
        """Ask for a type for the first time on this stream, and send the versions from an earlier stream."""
        self.names[type_url] = set(names)
        fields: dict[str, Any] = {"node": node} if node is not None else {}
        if self.delta:
            fields["initial_resource_versions"] = {n: v for n, (v, _) in self.has.get(type_url, {}).items()}
            fields["resource_names_subscribe"] = sorted(self.names[type_url])
        self.outbox.append(self.request(type_url, **fields))

    def subscribe(self, type_url: str, more: set[str], less: set[str]) -> None:
        """Change a subscription."""
        if type_url not in self.names:
            if more:
                self.open(type_url, more)
            return
        more, less = more - self.names[type_url], less & self.names[type_url]
        if not more and not less:
            return
        self.names[type_url] = (self.names[type_url] | more) - less
        for name in less:
            self.has.get(type_url, {}).pop(name, None)
        fields = {"resource_names_subscribe": sorted(more), "resource_names_unsubscribe": sorted(less)} if self.delta else {}
        self.outbox.append(self.request(type_url, **fields))

    def take(self, refuse: bool) -> tuple[str, set[str]] | None:
        """Take a response, and answer it. Returns the type, and all references of its resources, as `type name`."""
        message = self.inbox.popleft()
        type_url = message.type_url
        entries = [r.resource.value if self.delta else r.value for r in message.resources]
        # Heartbeats, and wrapped resources.
        if not self.delta:
            entries = [
                discovery_pb2.Resource.FromString(r.value).resource.value if r.type_url not in SHORT else r.value
                for r in message.resources
            ]
        parsed = [json.loads(body) for body in entries if body]
        refuse = refuse or any(p["bad"] for p in parsed)
        fields: dict[str, Any] = {"response_nonce": message.nonce}
        if refuse:
            fields["error_detail"] = {"code": 3, "message": "bad: " + " ".join(sorted(p["name"] for p in parsed))}
        else:
            has = self.has.setdefault(type_url, {})
            if not self.delta:
                self.version[type_url] = message.version_info
                if type_url in (CLUSTER, LISTENER, SCOPED_ROUTES):
                    has.clear()
            for p, body in zip(parsed, filter(None, entries), strict=True):
                has[p["name"]] = Resource.of(type_url, "", body).version, p["refs"]
            for name in message.removed_resources if self.delta else ():
                has.pop(name, None)
        self.outbox.append(self.request(type_url, **fields))
        if refuse:
            return None
        return type_url, {f"{t} {n}" for _, refs in self.has[type_url].values() for t, n in refs}

    def send(self, recall: bool) -> None:
        """Give the core the oldest request of the outbox. `recall`: try its bytes first, as the server does."""
        request = self.outbox.popleft()
        data = request.SerializeToString(deterministic=True)
        if recall and (events := self.core.recall(data)) is not None:
            self.log.events(events, self.who)
            self.receive_all()
        elif recall:
            self.do("receive", request, data)
        else:
            self.do("receive", request)


def node(name: str, ttl: bool = False) -> Any:
    """Return a node, with or without the features for TTLs."""
    return base_pb2.Node(id=name, cluster="c", user_agent_name="envoy", client_features=FEATURES if ttl else ())


class Ads:
    """A client with one ADS stream for all types: an Envoy, or with `named` a client that names everything."""

    def __init__(self, who: str, kind: str, rng: random.Random, open_stream: Callable[[], Any], log: Log, named: bool) -> None:
        self.who, self.kind, self.rng, self.open_stream, self.log, self.named = who, kind, rng, open_stream, log, named
        self.ttl = rng.random() < 0.5
        self.targets = {f"api-{n}" for n in rng.sample("mno", 2)} if named else set()
        self.connect(None)

    def connect(self, snapshot: Snapshot | None) -> None:
        """Open a stream, and send the versions from the earlier one."""
        before = getattr(self, "stream", None)
        self.log.lines.append(f"{self.who} opens")
        self.stream = Stream(self.log, self.who, self.kind, self.open_stream())
        if snapshot is not None:
            self.stream.do("offer", snapshot)
        kept = {} if before is None else before.names
        if before is not None:
            self.stream.has, self.stream.version = before.has, before.version
        first = LISTENER if self.named else CLUSTER
        self.stream.open(first, self.targets, node(self.who, self.ttl))
        for type_url in (t for t in ORDER if t in kept and t != first):
            self.stream.open(type_url, kept[type_url])

    def act(self, recall: bool) -> None:
        """Do one thing."""
        stream, rng = self.stream, self.rng
        if stream.outbox and (not stream.inbox or rng.random() < 0.6):
            stream.send(recall)
        elif stream.inbox:
            taken = stream.take(rng.random() < 0.04)
            if taken is not None:
                self.follow(*taken)

    def follow(self, type_url: str, refs: set[str]) -> None:
        """Subscribe to everything that its resources name."""
        stream = self.stream
        if not self.named:
            for parent, child in ((CLUSTER, LISTENER), (LISTENER, SCOPED_ROUTES)):
                if type_url == parent and child not in stream.names:
                    stream.open(child)
        children = {CLUSTER: (ENDPOINTS, SECRET), SCOPED_ROUTES: (ROUTES,), LISTENER: (ROUTES,), ROUTES: (CLUSTER,)}
        for child in children.get(type_url, ()):
            if (child == CLUSTER or type_url == LISTENER) and not self.named:
                continue
            if child == SECRET and self.named:
                continue
            wanted = {r.partition(" ")[2] for r in refs if r.startswith(SHORT[child] + " ")}
            if child == SECRET:
                wanted |= {"tls"}
            stream.subscribe(child, wanted, stream.names.get(child, set()) - wanted)


WAYS = (
    ("cds", "eds", "lds", "srds", "rds", "sds"),
    ("cds", "lds", "ads"),
    ("cds+eds", "lds+srds+rds", "sds"),
    ("ads", "rds"),
    ("ads", "ads"),
    ("cds", "eds", "rds"),
)


class Node:
    """One client that takes its types over several streams."""

    def __init__(self, api: Api, name: str, log: Log) -> None:
        self.api, self.log, self.rng = api, log, random.Random(name)
        _, self.kind, memo, seed = name.split("-")
        self.memo = memo == "memo"
        self.make, self.coordination = api.begin(), api.coordinate()
        self.way = WAYS[int(seed) % len(WAYS)]
        self.streams: list[Stream] = []
        self.ways: dict[Stream, str] = {}
        self.snapshot: Snapshot | None = None
        self.now = 0.0

    def types(self, way: str) -> list[str]:
        """Return the types that the client subscribes to on a stream."""
        if way == "ads":
            mine = {short for other in self.way if other != "ads" for short in other.split("+")}
            return [t for short, t in TYPES.items() if short not in mine]
        return [TYPES[short] for short in way.split("+")]

    def open(self, way: str) -> None:
        """Open a stream of the node. A part of several types is asked for over ADS, a type of its own over its service."""
        type_url = TYPES.get(way, "") if self.rng.random() < 0.8 else ""
        self.log.lines.append(f"{way} opens {SHORT.get(type_url, 'ads')}")
        stream = Stream(self.log, way, self.kind, self.make(self.kind, type_url, 0, self.memo))
        self.coordination.join(stream.core, self.now)
        self.streams.append(stream)
        self.ways[stream] = way
        if self.snapshot is not None:
            stream.do("offer", self.snapshot)
        names = {ENDPOINTS: "abcd", SECRET: ("a", "b", "tls"), ROUTES: "mno"}
        for each in self.types(way):
            asked = names.get(each, ())
            stream.open(each, self.rng.sample(asked, self.rng.randint(1, len(asked))) if asked else (), node("n"))

    def close(self, stream: Stream) -> None:
        """Close a stream."""
        self.log.lines.append(f"{stream.who} closes")
        self.streams.remove(stream)
        self.coordination.leave(stream.core, self.now)

    def after(self, streams: Iterable[Any]) -> None:
        """Let these streams reconsider."""
        for core in streams:
            stream = next(s for s in self.streams if s.core is core)
            stream.do(self.api.reconsider)

    def act(self) -> None:
        """Do one thing, as the server would."""
        rng, api = self.rng, self.api
        self.now += rng.choice((0.1, 0.1, 0.5, 3.0))
        closed = [way for way in self.way if way not in self.ways.values() or way not in [s.who for s in self.streams]]
        p = rng.random()
        if (p < 0.05 and closed) or not self.streams:
            self.open(rng.choice(closed))
            return
        stream = rng.choice(self.streams)
        stream.core.now = self.now
        if p < 0.08 or stream.over:
            self.close(stream)
        elif p < 0.16:
            assert self.snapshots is not None
            self.snapshot = self.snapshots.next()
            getattr(self.coordination, api.tick)(self.now)
            for each in self.streams if rng.random() < 0.5 else self.streams[::-1]:
                each.do("offer", self.snapshot)
        elif p < 0.19:
            stream.do(api.assume_complete)
        elif p < 0.21:
            stream.do(api.retry_in_parts)
        elif p < 0.29:
            getattr(self.coordination, api.tick)(self.now)
            self.after(getattr(self.coordination, api.overdue)())
        elif p < 0.34:
            self.resubscribe(stream)
        else:
            for _ in range(rng.randint(1, 4)):
                if stream.outbox:
                    getattr(self.coordination, api.tick)(self.now)
                    if not self.memo and getattr(stream.core, api.coordination) is not None and not stream.core.types:
                        getattr(self.coordination, api.before_first)(stream.core, stream.outbox[0].type_url)
                    stream.send(self.memo)
                    if getattr(stream.core, api.coordination) is not None and not stream.over:
                        self.after(getattr(self.coordination, api.after_request)(stream.core))
                elif stream.inbox:
                    stream.take(rng.random() < 0.05)

    def resubscribe(self, stream: Stream) -> None:
        """Change one subscription at random."""
        for type_url, names in stream.names.items():
            if names:
                change = self.rng.choice("abcmn")
                stream.subscribe(type_url, {change}, {change})
                return

    snapshots: RandomSnapshots | None = None
