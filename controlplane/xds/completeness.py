"""Report how much of the newest snapshot a client holds: the events `Held`, `Settled` and `Blocked` of one stream.

Held. A snapshot is held when two things are true. Each type is settled: nothing differs, is in flight, refused or unanswered.
And the client subscribes to everything that its resources need: clusters with EDS need their endpoints, scopes their routes. A
wildcard on an ADS stream means an Envoy, which goes on to ask for every type that has resources.

Settled. A snapshot is settled when the client holds all of it, except for resources that it refused in an older revision and
that have not changed since. So a switch counts as done, even while the client refuses an unrelated listener.

Blocked. A part of the snapshot waits because of something that was refused: for example a route whose cluster was refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.envoy_types import CLUSTER, LISTENER
from controlplane.snapshot import NOTHING, Resource, Snapshot
from controlplane.xds.events import Blocked, Event, Held, Settled
from controlplane.xds.overlay import same
from controlplane.xds.state import StreamState
from controlplane.xds.subscription import Subscription


class Completeness:
    """The newest revisions that were reported for one stream."""

    __slots__ = ("_blocked", "_held", "_settled")

    def __init__(self) -> None:
        # -1: none yet.
        self._held = self._settled = self._blocked = -1

    def fork(self) -> Completeness:
        """Return a copy."""
        other = Completeness()
        other._held, other._settled, other._blocked = self._held, self._settled, self._blocked
        return other

    def reported(self, revision: int) -> tuple[bool, ...]:
        """Return which events were reported for a revision."""
        return tuple(r == revision for r in (self._held, self._settled, self._blocked))

    def events(self, stream: StreamState, snapshot: Snapshot) -> list[Event]:
        """Return the events of the newest snapshot that were not reported yet."""
        events: list[Event] = []
        if self._held != snapshot.revision and _complete(stream, snapshot):
            self._held = snapshot.revision
            events.append(Held(self._held))
        return events + self._except_refused(stream, snapshot)

    def _except_refused(self, stream: StreamState, snapshot: Snapshot) -> list[Event]:
        """Return the event of a snapshot that is not held only because something older was refused."""
        revision, subs = snapshot.revision, stream.subscriptions
        since = max((r.since for s in subs for r in s.refused.values()), default=revision)
        if since >= revision or revision in (self._held, self._settled) or not all(s.answered() for s in subs):
            return []
        if any(_lacks(sub, n) for sub in subs if not sub.idle for n in sub.candidates()):
            # Not blocked if it waits for another stream, or for a client that has not said yet what it holds.
            if self._blocked == revision or stream.coordination is not None or stream.returning:
                return []
            self._blocked = revision
            return [Blocked(revision)]
        if not stream.type_url:
            requested_first = [t for t in (CLUSTER, LISTENER) if snapshot.resources.get(t) and t not in stream.types]
            if any(s.wildcard for s in subs) and not all(_elsewhere(stream, t) for t in requested_first):
                return []
            if not all(_children_subscribed(stream, sub, snapshot) for sub in subs):
                return []
        self._settled = revision
        return [Settled(revision, since)]


def _complete(stream: StreamState, snapshot: Snapshot) -> bool:
    """Return whether the client holds all that the snapshot has for it."""
    subs = stream.subscriptions
    if not subs or not all(s.settled() for s in subs):
        return False
    for sub in subs:
        if sub.idle:
            continue
        if any(sub.covers(n) and not same(sub.held.get(n), sub.latest.get(n)) for n in sub.candidates()):
            return False
    if stream.type_url:
        return True
    types = stream.types
    missing = [t for t, rs in snapshot.resources.items() if rs and t not in types and not _elsewhere(stream, t)]
    node = stream.coordination
    if missing and (any(s.wildcard for s in subs) or (node is not None and node.takes_everything)):
        return False
    return all(_children_subscribed(stream, sub, snapshot) for sub in subs)


def _lacks(sub: Subscription, name: str) -> bool:
    """Return whether the client should hold something under `name`, does not, and has not refused it."""
    latest = sub.latest.get(name)
    return latest is not None and sub.covers(name) and not sub.stands(name) and not same(sub.held.get(name), latest)


def _elsewhere(stream: StreamState, type_url: str) -> bool:
    """Return whether the client takes a type over another stream."""
    return stream.coordination is not None and stream.coordination.asked_elsewhere(stream.view, type_url)


def _children_subscribed(stream: StreamState, sub: Subscription, snapshot: Snapshot) -> bool:
    """Return whether the client subscribes to everything that its resources of a type name.

    For a refused resource, the version that the client holds counts.
    """
    if sub.refused:
        covered = (n for n in sub.latest if sub.covers(n))
        resources = (sub.held.get(n) if sub.stands(n) else sub.latest[n] for n in covered)
        return _subscribed(stream, resources, snapshot)
    if sub.wildcard or sub.names.all_of(sub.latest):
        for type_url, names in stream.context.references.references(sub.latest).items():
            other, existing = stream.subscription(type_url), snapshot.resources.get(type_url, NOTHING)
            if other is None:
                if not existing.keys().isdisjoint(names) and not _elsewhere(stream, type_url):
                    return False
            elif not other.wildcard and not other.names.covers(names, existing):
                return False
        return True
    # Iterate over the shorter of the two: a client can name far more resources than exist.
    few = [n for n in sub.latest if n in sub.names] if len(sub.latest) < len(sub.names) else sub.names
    return _subscribed(stream, (sub.latest[n] for n in few if n in sub.latest), snapshot)


def _subscribed(stream: StreamState, resources: Iterable[Resource | None], snapshot: Snapshot) -> bool:
    """Return whether the client subscribes to everything that these resources name and that exists."""
    for type_url, name in {ref for r in resources if r is not None for ref in r.refs}:
        other = stream.subscription(type_url)
        if other is None and _elsewhere(stream, type_url):
            continue
        if name in snapshot.resources.get(type_url, NOTHING) and (other is None or not other.covers(name)):
            return False
    return True
