"""Several streams of one node: what one of them may be sent depends on what the client holds over the others.

A client may take each type over a stream of its own (CDS, EDS, …), or some of them so and the rest over ADS. Then no order
between types can be promised by the order of sending: streams overtake each other ("Eventual consistency considerations").
What can be done is to wait for ACKs on the other streams. The rules are those of `stream.py`; a stream that does not speak
of a type itself asks here:

    a stream wants to            waits until
    send a route                 each cluster that it names was ACKed on a stream that takes all clusters, and its endpoints
                                 and secrets on one that takes them
    remove a cluster             nothing on the streams of routes and listeners may still name it
    remove endpoints             nothing on the streams of clusters may still name them
    remove a route               nothing on the streams of scopes and listeners may still name it

What the others may still use is judged by the newest snapshot of the stream that asks: another may not have seen it yet.

Waiting has an end: a removal waits for `linger` seconds and no longer, and a route of which the client never asked for the
endpoints or secrets for `UNASKED`. For `linger` a stream that closed counts too, with what it held then, for those that were
open beside it: its client will mostly be back, and uses it meanwhile. A new cluster that was refused, or is not answered,
holds back the routes that need it for as long as that lasts.

A stream that speaks of both ends, as every stream of an Envoy does that takes all over ADS, asks nobody and is asked by
nobody. So two whole clients under one node id don't wait for each other. They are known by this: no client asks for a type
on two streams of ADS. Where there is a type that all streams have asked for, each stream is *independent*, as if it were the
only one: its `coordination` is None. This is decided when a stream asks for its first type (`before_first_request`), and again
whenever it has asked for more (`after_request`).

Known flaws:
- After a restart of the control plane nothing is known of what the client holds over a stream that is not back yet. Removals
  wait for it a while (`Stream.assume_complete`), routes don't. How many streams a client will open it does not say, so for
  the same reason a node counts as holding a revision when those that are back do.
- Nobody says `Blocked` of a client with several streams: it takes the refusal on one and what waits for it on another, and
  neither knows both. Such a node is behind, and its refusal is shown, but no revision after the refused one is said to fail.

There is no clock in here: `now` is seconds of any clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from typing import Protocol

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, NAMED_BY
from controlplane.snapshot import Resource
from controlplane.xds.overlay import between, same
from controlplane.xds.subscription import ANYTHING, Subscription

# How long a removal waits for the other streams to let go, seconds.
LINGER = 15.0

# How long a route waits for what its clusters are warmed with and the client has not asked for, seconds: it asks for that as
# soon as it has the cluster.
UNASKED = 2.0

# Closed streams that are remembered, at most; then the one that closed first is forgotten.
_LEFT = 64


class StreamView(Protocol):
    """A stream, as the others of its node see it."""

    coordination: Coordination | None

    @property
    def type_url(self) -> str: ...
    @property
    def types(self) -> Collection[str]: ...
    @property
    def returning(self) -> bool: ...
    @property
    def subscriptions(self) -> tuple[Subscription, ...]: ...
    def subscription(self, type_url: str) -> Subscription | None: ...
    def should_hold(self, type_url: str) -> Mapping[str, Resource]: ...


class Coordination:
    """The streams of one node, ADS or not."""

    def __init__(self, linger: float = LINGER) -> None:
        self._linger = linger
        self._now = 0.0
        # The open ones, in the order that they came in, which their numbers say.
        self._open: dict[StreamView, int] = {}
        self._numbers = 0
        # Closed ones, the first first: when they closed, and the number that the next stream to come has.
        self._left: dict[StreamView, tuple[float, int]] = {}
        # Until when something waits, by type and name.
        self._until: dict[tuple[str, str], float] = {}
        # Streams that were told to wait since they last looked.
        self._waiting: set[StreamView] = set()
        # Types that all have asked for, open and closed, that have asked for any: then each is apart. Empty: not known of any.
        # It may lack some.
        self._common: frozenset[str] = frozenset()
        # By stream of clusters: endpoints that the client will want anew once it has taken those that were sent.
        self._owed: dict[StreamView, set[str]] = {}

    # ------------------------------------------------------------------------------------------------- for the shell

    def __len__(self) -> int:
        return len(self._open)

    def join(self, stream: StreamView, now: float) -> None:
        """A stream has said that it is this node's."""
        self.set_time(now)
        self._open[stream] = self._numbers
        self._numbers += 1
        if self._common:
            stream.coordination = self  # until it is known what it asks for
        else:
            self._judge()

    def before_first_request(self, stream: StreamView, type_url: str) -> None:
        """A stream is about to ask for something, its first type: from then on it is apart, or all point to this."""
        if stream.type_url or not type_url:
            self._tell(frozenset())
            return
        if type_url not in self._common:
            self._judge()
        if type_url in self._common or len(self._open) + len(self._left) == 1:
            self._common = frozenset((type_url,))
            stream.coordination = None
        else:
            self._tell(frozenset())

    def leave(self, stream: StreamView, now: float) -> None:
        """A stream has closed."""
        self.set_time(now)
        if stream not in self._open:
            return
        del self._open[stream]
        stream.coordination = None
        self._waiting.discard(stream)
        self._owed.pop(stream, None)
        self._left[stream] = now, self._numbers
        if len(self._left) > _LEFT:
            del self._left[next(iter(self._left))]
        if not self._common:
            self._judge()

    def set_time(self, now: float) -> None:
        """The time is `now`."""
        self._now = now
        left = {s: left for s, left in self._left.items() if now - left[0] < self._linger}
        if len(left) < len(self._left):
            self._left = left
            if not self._common:
                self._judge()
        # What is over is kept a while, so that it does not begin anew.
        self._until = {k: t for k, t in self._until.items() if now - t < self._linger}

    def after_request(self, stream: StreamView) -> list[StreamView]:
        """Something became of `stream`. Returns the others that have waited: they are to look again (`Stream.reconsider`)."""
        self._settle(stream)
        if stream.coordination is not None and self._judge():
            return self.take_overdue()  # nobody waits for others any more
        woken = self._waiting - {stream}
        self._waiting &= {stream}
        return [s for s in self._open if s in woken]

    def take_overdue(self) -> list[StreamView]:
        """The streams that have waited, since the time of something they wait for has passed. Call `set_time` first."""
        woken, self._waiting = self._waiting, set()
        return [s for s in self._open if s in woken]

    @property
    def next_deadline(self) -> float | None:
        """When something that waits need wait no longer; None when nothing waits."""
        ends = [*self._until.values(), *(closed + self._linger for closed, _ in self._left.values())]
        return min((t for t in ends if t > self._now), default=None) if self._waiting else None

    def _judge(self) -> bool:
        """Finds out what all have asked for, and tells the streams whether they are apart; which is returned."""
        everyone = (*self._open, *self._left)
        if any(stream.type_url for stream in everyone):
            common: frozenset[str] = frozenset()
        else:
            asked = [frozenset(stream.types) for stream in everyone if stream.types]
            common = frozenset.intersection(*asked) if asked else frozenset()
        self._tell(common)
        return bool(common)

    def _tell(self, common: frozenset[str]) -> None:
        self._common = common
        several = len(self._open) + len(self._left) > 1
        for stream in self._open:
            stream.coordination = self if several and not (common and stream.types) else None

    def _settle(self, stream: StreamView) -> None:
        """Once the client has answered for its clusters, their endpoints are to be sent anew where they come over ADS.

        An Envoy that takes endpoints over a stream a cluster opens a new one for a cluster that changed.
        """
        owed, clusters = self._owed.get(stream), stream.subscription(CLUSTER)
        if not owed or clusters is None or clusters.inflight:
            return
        del self._owed[stream]
        for other in self._open:
            endpoints = other.subscription(ENDPOINTS)
            if endpoints is not None and not other.type_url and other.subscription(CLUSTER) is None:
                endpoints.owed.update(filter(endpoints.covers, owed))
                self._waiting.add(other)

    # -------------------------------------------------------------------------------------------- for the streams

    def speaks(self, stream: StreamView, type_url: str) -> bool:
        """Whether one of the others has asked for a type."""
        if any(True for _ in self._subscriptions(stream, type_url)):
            return True
        self._waiting.add(stream)
        return False

    @property
    def takes_all(self) -> bool:
        """Whether the client takes all that there is of a type: an Envoy, which goes on to ask for the other types."""
        return any((s := o.subscription(t)) is not None and s.wildcard for o in self._open for t in (CLUSTER, LISTENER))

    def clusters_sent(self, stream: StreamView, clusters: Iterable[Resource]) -> None:
        """Clusters that the client has in another version are on their way to it."""
        names = {n for c in clusters for t, n in c.refs if t == ENDPOINTS}
        if names:
            self._owed.setdefault(stream, set()).update(names)

    def in_place(self, stream: StreamView, resource: Resource) -> bool:
        """Whether every cluster that `resource` names is at the client, with its endpoints."""
        own = stream.subscription(CLUSTER)
        clusters = [own] if own is not None else list(self._subscriptions(stream, CLUSTER, resource.type_url))
        clusters = [s for s in clusters if s.wildcard]
        if not clusters:
            return True
        names = (n for t, n in resource.refs if t == CLUSTER)
        if all(any(self._cluster_in_place(stream, s, n) for s in clusters) for n in names):
            return True
        self._waiting.add(stream)
        return False

    def _cluster_in_place(self, stream: StreamView, clusters: Subscription, name: str) -> bool:
        cluster = clusters.held.get(name)
        if cluster is None or clusters.current(name) is None or clusters.may_be_gone(name):
            return False
        return all(self._warm(stream, t, n) for t, n in cluster.refs if n in stream.should_hold(t))

    def _warm(self, stream: StreamView, type_url: str, name: str) -> bool:
        """Whether the client has what a cluster is warmed with; if it takes none of the type anywhere: yes."""
        own = stream.subscription(type_url)
        subs = [*([own] if own is not None else []), *self._subscriptions(stream, type_url)]
        if not subs:
            return True
        covering = [s for s in subs if s.covers(name)]
        if not covering:
            return not self._waits(type_url, name, min(UNASKED, self._linger))
        return any(s.held.get(name) is not None and s.current(name) is not None for s in covering)

    def named(self, stream: StreamView, type_url: str) -> Container[str]:
        """The names of a type that are to be kept, because the client may still use them."""
        names: set[str] = set()
        anything = False
        for parent in NAMED_BY.get(type_url, ()):
            own = stream.subscription(parent)
            subs = [own] if own is not None else list(self._subscriptions(stream, parent, type_url))
            anything = anything or (not subs and stream.returning)
            for sub in subs:
                for old in in_use(sub, stream.should_hold(parent)):
                    anything = anything or ANYTHING in old.refs
                    names.update(n for t, n in old.refs if t == type_url)
        return _Kept(self, stream, type_url, None if anything else names)

    def keeps(self, stream: StreamView, type_url: str, name: str) -> bool:
        """Whether the time for which a name is kept has not passed yet; it begins with the first call."""
        self._waiting.add(stream)
        return self._waits(type_url, name, self._linger)

    def forget(self, type_url: str, name: str) -> None:
        """Nothing uses a name any more."""
        self._until.pop((type_url, name), None)

    def _waits(self, type_url: str, name: str, seconds: float) -> bool:
        return self._now < self._until.setdefault((type_url, name), self._now + seconds)

    def _subscriptions(self, stream: StreamView, type_url: str, without: str = "") -> Iterator[Subscription]:
        """The conversations of other streams about a type; not of those that speak of `without` too."""
        number = self._open.get(stream, -1)
        for other in (*self._open, *(s for s, (_, next_number) in self._left.items() if number < next_number)):
            sub = other.subscription(type_url)
            if other is not stream and sub is not None and not (without and other.subscription(without)):
                yield sub


class _Kept(Container[str]):
    """Names, or with None everything, each for a limited time."""

    def __init__(self, node: Coordination, stream: StreamView, type_url: str, names: set[str] | None) -> None:
        self._coordination, self._stream, self._type_url, self._names = node, stream, type_url, names

    def __contains__(self, name: object) -> bool:
        assert isinstance(name, str)
        if self._names is None or name in self._names:
            return self._coordination.keeps(self._stream, self._type_url, name)
        self._coordination.forget(self._type_url, name)
        return False


def in_use(sub: Subscription, latest: Mapping[str, Resource]) -> Iterator[Resource]:
    """What the client may hold of a type, or soon may, and by `latest` should not."""
    for name in {*between(sub.held.base, latest).names, *sub.held.over} if sub.held.base else sub.held.over:
        if (content := sub.held.get(name)) and not same(content, latest.get(name)):
            yield content
    for batch in sub.inflight.values():
        if batch.contents is not latest:
            yield from (c for n, c in batch.contents.items() if c and not same(c, latest.get(n)))
    for refusal in sub.refused.values():
        yield from refusal.all_of_it()
