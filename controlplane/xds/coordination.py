"""Coordinate several streams of one node: what one stream may send depends on what the client holds over the others.

A client may take each type over a stream of its own (CDS, EDS, …), or some types so and the others over ADS. Then the order of
sending can't promise an order between types: streams overtake each other ("Eventual consistency considerations"). But a stream
can wait for ACKs on the other streams. The rules are those of `readiness.py`. A stream that does not subscribe to a type
itself asks here:

    a stream wants to            and waits until
    send a route                 the client has ACKed each cluster that the route names, on a stream that takes all clusters,
                                 and the cluster's endpoints and secrets on a stream that takes them
    remove a cluster             nothing on the streams of routes and listeners may still name it
    remove endpoints             nothing on the streams of clusters may still name them
    remove a route               nothing on the streams of scopes and listeners may still name it

The newest snapshot of the stream that asks decides what is outdated on the other streams, because those may not have been
offered it yet.

Most waits are limited. A removal waits for `linger` seconds at most. A route waits for `TIME_TO_ASK` seconds at most for
endpoints or secrets that the client has not asked for. A closed stream, with what it held, still counts for `linger` seconds,
for the streams that were open at the same time: its client will probably reconnect, and uses the resources meanwhile. One wait
has no limit: routes wait for a new cluster as long as it is refused or not answered.

A stream of a client that takes everything over ADS, as Envoys do, has both ends of each reference: it asks nobody, and no
other stream asks about it. So two whole clients under one node id do not wait for each other. They are recognised by this: no
client asks for one type on two ADS streams. If there is a type that all streams have asked for, each stream is *independent*,
as if it were the only one: its `coordination` is None. This is decided when a stream asks for its first type
(`before_first_request`), and again whenever it has asked for more (`after_request`).

Known flaws:
- A client does not say how many streams it will open. So after a restart of the control plane, nothing is known about a stream
  that has not reconnected yet. Removals wait for it a while (`Stream.assume_complete`), routes don't. And a node counts as
  holding a revision when all its reconnected streams hold it.
- `Blocked` is never reported for a client with several streams: one stream gets the NACK, another waits because of it, and
  neither knows both. Such a node is shown as behind, with its NACK, but no revision after the refused one is reported as
  failed.

This module has no clock: `now` is seconds of any clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER
from controlplane.snapshot import Resource, Resources
from controlplane.xds import readiness
from controlplane.xds.subscription import Subscription
from controlplane.xds.view import StreamView

# How long a removal waits for the other streams, seconds.
LINGER = 15.0

# How long a route waits for endpoints or secrets that the client has not asked for, seconds. A client normally asks for them
# as soon as it has the cluster.
TIME_TO_ASK = 2.0

# Closed streams that are remembered, at most. When one more closes, the one that closed first is forgotten.
_MOST_CLOSED = 64


class Coordination:
    """The streams of one node: ADS streams and per-type streams (rule 5)."""

    __slots__ = ("_closed", "_common", "_linger", "_next_number", "_open", "_resend", "_waiting", "deadlines")

    def __init__(self, linger: float = LINGER) -> None:
        self._linger = linger
        # The open streams, in the order in which they opened: their numbers.
        self._open: dict[StreamView, int] = {}
        self._next_number = 0
        # The closed streams, in the order in which they closed: when, and the number of the next stream to open.
        self._closed: dict[StreamView, tuple[float, int]] = {}
        self.deadlines = _Deadlines(linger)
        # Streams that had to wait for another stream since they were last reconsidered.
        self._waiting: set[StreamView] = set()
        # Types for which every stream, open or closed, has asked; streams that have asked for nothing yet don't count. If
        # there are any, each stream is independent. May lack some types. Empty: no such type is known.
        self._common: frozenset[str] = frozenset()
        # By the stream that sent clusters: endpoints that the client will need again once it has ACKed these clusters.
        self._resend: dict[StreamView, set[str]] = {}

    # ------------------------------------------------------------------------------------------------- for the owner

    def __len__(self) -> int:
        return len(self._open)

    def join(self, stream: StreamView, now: float) -> None:
        """Add a stream, after its first request has named this node."""
        self.set_time(now)
        self._open[stream] = self._next_number
        self._next_number += 1
        if self._common:
            stream.coordination = self  # until it asks for its first type
        elif len(self._open) + len(self._closed) > 1:
            self._find_common()

    def before_first_request(self, stream: StreamView, type_url: str) -> None:
        """Decide whether the stream is independent. Call it before its first request is processed."""
        if stream.type_url or not type_url:
            self._set_common(frozenset())
            return
        if type_url not in self._common:
            self._find_common()
        if type_url in self._common or len(self._open) + len(self._closed) == 1:
            self._common = frozenset((type_url,))
            stream.coordination = None
        else:
            self._set_common(frozenset())

    def leave(self, stream: StreamView, now: float) -> None:
        """Remove a stream that has closed. What it held still counts for `linger` seconds."""
        self.set_time(now)
        if stream not in self._open:
            return
        del self._open[stream]
        stream.coordination = None
        self._waiting.discard(stream)
        self._resend.pop(stream, None)
        self._closed[stream] = now, self._next_number
        if len(self._closed) > _MOST_CLOSED:
            del self._closed[next(iter(self._closed))]
        if not self._common:
            self._find_common()

    def set_time(self, now: float) -> None:
        """Set the time."""
        self.deadlines.set_time(now)
        if not self._closed:
            return
        closed = {s: entry for s, entry in self._closed.items() if now - entry[0] < self._linger}
        if len(closed) < len(self._closed):
            self._closed = closed
            if not self._common:
                self._find_common()

    def after_request(self, stream: StreamView) -> list[StreamView]:
        """Note that `stream` has processed a request. Returns the streams that waited: the caller reconsiders each."""
        self._pass_on_resends(stream)
        if stream.coordination is not None and self._find_common():
            return self.take_overdue()  # no stream waits for others any longer
        woken = self._waiting - {stream}
        self._waiting &= {stream}
        return [s for s in self._open if s in woken]

    def take_overdue(self) -> list[StreamView]:
        """Take out the streams that waited: the caller reconsiders each. Call it after `set_time`, at a deadline."""
        woken, self._waiting = self._waiting, set()
        return [s for s in self._open if s in woken]

    @property
    def next_deadline(self) -> float | None:
        """The time when the next wait ends; None when no stream waits."""
        ends = [*self.deadlines.times(), *(closed + self._linger for closed, _ in self._closed.values())]
        return min((t for t in ends if t > self.deadlines.now), default=None) if self._waiting else None

    def _find_common(self) -> bool:
        """Set the types that all streams have asked for, and which streams are independent. Returns whether there are any."""
        every = (*self._open, *self._closed)
        if any(stream.type_url for stream in every):
            common: frozenset[str] = frozenset()
        else:
            asked = [frozenset(stream.types) for stream in every if stream.types]
            common = frozenset.intersection(*asked) if asked else frozenset()
        self._set_common(common)
        return bool(common)

    def _set_common(self, common: frozenset[str]) -> None:
        self._common = common
        several = len(self._open) + len(self._closed) > 1
        for stream in self._open:
            stream.coordination = self if several and not (common and stream.types) else None

    def _pass_on_resends(self, stream: StreamView) -> None:
        """Send endpoints again on the ADS streams, once the client has answered the response with their clusters (rule 32).

        Streams of one type need no such help: an Envoy opens a new stream for the endpoints of a changed cluster.
        """
        resend, clusters = self._resend.get(stream), stream.subscription(CLUSTER)
        if not resend or clusters is None or clusters.inflight:
            return
        del self._resend[stream]
        for other in self._open:
            endpoints = other.subscription(ENDPOINTS)
            if endpoints is not None and not other.type_url and other.subscription(CLUSTER) is None:
                endpoints.resend.update(filter(endpoints.covers, resend))
                self._waiting.add(other)

    # -------------------------------------------------------------------------------------------- for the streams

    def asked_elsewhere(self, stream: StreamView, type_url: str) -> bool:
        """Return whether another stream has asked for a type."""
        if any(True for _ in self.others(stream, type_url)):
            return True
        self._waiting.add(stream)
        return False

    @property
    def takes_everything(self) -> bool:
        """Return whether the client subscribes to all clusters or listeners: an Envoy, which asks for the other types next."""
        return any((s := o.subscription(t)) is not None and s.wildcard for o in self._open for t in (CLUSTER, LISTENER))

    def clusters_sent(self, stream: StreamView, clusters: Iterable[Resource]) -> None:
        """Note that clusters which the client holds in another version were sent to it."""
        names = {n for c in clusters for t, n in c.refs if t == ENDPOINTS}
        if names:
            self._resend.setdefault(stream, set()).update(names)

    def in_place(self, stream: StreamView, resource: Resource) -> bool:
        """Return whether every cluster that a resource names is in place; if not, the stream waits."""
        if readiness.in_place(_NodeView(self, stream), resource):
            return True
        self._waiting.add(stream)
        return False

    def still_used(self, stream: StreamView, type_url: str) -> Container[str]:
        """Return the names of a type that the client may still use, each for a limited time."""
        return _KeptNames(self, stream, type_url, readiness.still_used(_NodeView(self, stream), type_url))

    # ------------------------------------------------------------------------------------------------ for this module

    def keeps(self, stream: StreamView, type_url: str, name: str) -> bool:
        """Return whether to keep a used name still. Its time begins with the first call."""
        self._waiting.add(stream)
        return self.deadlines.running(type_url, name, self._linger)

    def others(self, stream: StreamView, type_url: str, without: str = "") -> Iterator[Subscription]:
        """Yield the other streams' subscriptions to a type. Leaves out streams that have asked for `without`, another type."""
        number = self._open.get(stream, -1)
        for other in (*self._open, *(s for s, (_, next_number) in self._closed.items() if number < next_number)):
            sub = other.subscription(type_url)
            if other is not stream and sub is not None and not (without and other.subscription(without)):
                yield sub


class _Deadlines:
    """The times until which changes wait, by type and name."""

    __slots__ = ("_linger", "_until", "now")

    def __init__(self, linger: float) -> None:
        self._linger = linger
        self.now = 0.0
        self._until: dict[tuple[str, str], float] = {}

    def set_time(self, now: float) -> None:
        """Set the time. A deadline is remembered for a while after it has passed, so that the wait does not begin anew."""
        self.now = now
        if self._until:
            self._until = {k: t for k, t in self._until.items() if now - t < self._linger}

    def running(self, type_url: str, name: str, seconds: float) -> bool:
        """Return whether `seconds` have not passed yet since the first call."""
        return self.now < self._until.setdefault((type_url, name), self.now + seconds)

    def had_time(self, type_url: str, name: str) -> bool:
        """Return whether the client had time to ask for a resource. Its time begins with the first call."""
        return not self.running(type_url, name, min(TIME_TO_ASK, self._linger))

    def forget(self, type_url: str, name: str) -> None:
        """Forget a deadline."""
        self._until.pop((type_url, name), None)

    def times(self) -> Iterable[float]:
        """Return all deadlines."""
        return self._until.values()


class _NodeView:
    """A client with several streams, as one of them sees it: a `readiness.ClientView`."""

    def __init__(self, node: Coordination, stream: StreamView) -> None:
        self._node, self._stream = node, stream

    @property
    def returning(self) -> bool:
        return self._stream.returning

    def subscriptions_to(self, type_url: str) -> Sequence[Subscription]:
        own = self._stream.subscription(type_url)
        return [*([own] if own is not None else []), *self._node.others(self._stream, type_url)]

    def parent_subscriptions(self, parent: str, child: str) -> Sequence[Subscription]:
        """Return the stream's own subscription; else those of streams that have no subscription to `child` themselves."""
        own = self._stream.subscription(parent)
        return [own] if own is not None else list(self._node.others(self._stream, parent, child))

    def should_hold(self, type_url: str) -> Resources:
        return self._stream.should_hold(type_url)

    def had_time(self, type_url: str, name: str) -> bool:
        return self._node.deadlines.had_time(type_url, name)


class _KeptNames(Container[str]):
    """The names that the client may still use. Each is in the set for a limited time."""

    def __init__(self, node: Coordination, stream: StreamView, type_url: str, used: Container[str]) -> None:
        self._node, self._stream, self._type_url, self._used = node, stream, type_url, used

    def __contains__(self, name: object) -> bool:
        assert isinstance(name, str)
        if name in self._used:
            return self._node.keeps(self._stream, self._type_url, name)
        self._node.deadlines.forget(self._type_url, name)
        return False
