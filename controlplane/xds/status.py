"""What a node holds of each resource, against what it should hold: read off its streams, and never kept.

A name is in one of six states. The first that fits counts:

    what should be held               and                                           state
    (whatever)                        the client refused just this                  REFUSED
    (whatever)                        it is on its way: sent, and not answered      SENT
    what is held, or nothing more     nobody waits for it                           SYNCED
    something else                    (whatever)                                    WAITING
    nothing                           the client asks for it by its name            ABSENT
    something                         a client that takes all there is does not     UNASKED
                                      ask for it

WAITING is what the order of things holds back (`stream.py`), what follows when something of the type is answered, and what is
tried again after a NACK. What a client that names everything does not name, it does not want: it is not listed.

A NACK is about a response, so what came along with a bad resource is REFUSED, too (`subscription.py`).

Several streams of one node count for one: of two states under one name that counts which is further from what should be.

Of the resources that a stream took last it is known when; of the others by when (`exact` is False). Whoever has a clock says
what the time that the streams are told is on it (`ahead`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice

from controlplane.envoy_types import ORDER
from controlplane.snapshot import Resource
from controlplane.xds.coordination import StreamView
from controlplane.xds.overlay import NOTHING, same
from controlplane.xds.subscription import ANYTHING, Batch, Subscription

# Names in one part, at most.
_PART = 5_000


class State(IntEnum):
    """How a resource stands; what is further from what should be is greater, but for the first."""

    UNASKED = 0
    SYNCED = 1
    ABSENT = 2
    WAITING = 3
    SENT = 4
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Refused:
    """A NACK of what is under a name, since which nothing else was taken there."""

    # None: what was refused is that it goes.
    content: Resource | None
    # The client's words, and when it said them.
    message: str
    time: float
    # Newest revision that the same was refused of first.
    revision: int


@dataclass(frozen=True, slots=True)
class ResourceStatus:
    """One name of one type at one node."""

    type_url: str
    name: str
    state: State
    # What the client took last; None: nothing. `known` says whether more than its version is known.
    held: Resource | None
    # None: it should be gone, or never was.
    should: Resource | None
    # When it took what it holds, or by when; None when it holds nothing.
    time: float | None = None
    exact: bool = False
    # Revision that what is on its way was sent with; 0 when nothing is.
    sent: int = 0
    # Also when the state is another: then what was refused is not what should be held any more, or is tried again.
    refused: Refused | None = None

    @property
    def synced(self) -> bool:
        """Whether there is nothing that the client should hold and doesn't, or the other way round."""
        return self.state in (State.SYNCED, State.ABSENT)


def known(resource: Resource) -> bool:
    """Whether the content is known: of what a client brought along from an earlier stream it may be only the version."""
    return ANYTHING not in resource.refs


def statuses(streams: Iterable[StreamView], ahead: float) -> Iterator[list[ResourceStatus]]:
    """What the streams of one node hold, in parts, for `merged`: a part is of one type on one stream, and takes milliseconds.

    Times are those that the streams are told, and `ahead` seconds. Streams may be told things between two parts.
    """
    streams = tuple(streams)
    subs = [sub for stream in streams for sub in stream.subscriptions]
    for sub in subs:
        found = _statuses(sub, ahead)
        while part := list(islice(found, _PART)):
            yield part
    if not any(sub.wildcard for sub in subs):
        return
    for type_url in ORDER:
        covering = [sub for sub in subs if sub.type_url == type_url]
        there = next((whole for stream in streams if (whole := stream.should_hold(type_url))), NOTHING)
        if not any(sub.wildcard for sub in covering):
            unasked = (r for n, r in there.items() if not any(sub.covers(n) for sub in covering))
            yield [ResourceStatus(type_url, r.name, State.UNASKED, None, r) for r in unasked]


def merged(parts: Iterable[list[ResourceStatus]]) -> list[ResourceStatus]:
    """The parts of one node as one: in the order of types, by name within a type, each name once."""
    by_type: dict[str, dict[str, ResourceStatus]] = {t: {} for t in ORDER}
    for part in parts:
        for status in part:
            there = by_type.setdefault(status.type_url, {})
            before = there.get(status.name)
            if before is None or before.state < status.state:
                there[status.name] = status
    return [statuses[name] for statuses in by_type.values() for name in sorted(statuses)]


def _statuses(sub: Subscription, ahead: float) -> Iterator[ResourceStatus]:
    doubtful = sub.candidates()
    for batch in sub.inflight.values():
        doubtful.update(batch.contents)
    for name, resource in sub.latest.items():
        if name not in doubtful and sub.covers(name):
            yield ResourceStatus(sub.type_url, name, State.SYNCED, resource, resource, *_taken(sub, name, ahead))
    # A name that the client gave up while something was on its way under it is none of its any more.
    for name in {n for n in doubtful if sub.covers(n)}.union(n for n in sub.names if n not in sub.latest):
        yield _status(sub, name, ahead)


def _status(sub: Subscription, name: str, ahead: float) -> ResourceStatus:
    held, should, refusal = sub.held.get(name), sub.latest.get(name), sub.refused.get(name)
    sent = next((b.revision for b in reversed(sub.inflight.values()) if _brings(b, name, held)), None)
    if sub.stands(name):
        state = State.REFUSED
    elif sent is not None:
        state = State.SENT
    elif held is None and should is None:
        state = State.ABSENT
    elif same(held, should) and refusal is None:
        state = State.SYNCED
    else:
        state = State.WAITING
    time, exact = _taken(sub, name, ahead) if held is not None else (None, False)
    refused = None if refusal is None else Refused(refusal.content, refusal.message, refusal.time + ahead, refusal.since)
    return ResourceStatus(sub.type_url, name, state, held, should, time, exact, sent or 0, refused)


def _brings(batch: Batch, name: str, held: Resource | None) -> bool:
    """Whether a response is news to a client that holds this."""
    return (batch.whole or name in batch.contents) and not same(batch.contents.get(name), held)


def _taken(sub: Subscription, name: str, ahead: float) -> tuple[float, bool]:
    time = sub.taken.get(name)
    return (sub.taken_by + ahead, False) if time is None else (time + ahead, True)
