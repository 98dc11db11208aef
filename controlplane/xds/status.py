"""Compare what a node holds with what it should hold. The result is read from its streams, and never stored.

A name is in one of six states. The first that fits counts:

    the client should hold            and                                           state
    (anything)                        the client refused exactly this               REFUSED
    (anything)                        it is in flight: sent, and not answered       SENT
    what it holds, or nothing         the client does not wait for it               SYNCED
    another content                   (in any case)                                 WAITING
    nothing                           the client asks for it by its name            ABSENT
    something                         a client that takes everything does not       UNASKED
                                      ask for it

A WAITING resource waits for another type (`ordering.py`), for the answer to an earlier response of its type, or for another
try after a NACK. If a client names everything that it wants, resources that it does not name are not listed.

A NACK is about a response, so the good resources of the response are REFUSED, too (`refusals.py`).

Several streams of one node count as one. If a name has a different state on each, the one that is furthest from SYNCED counts:
the greatest `State`.

The time of an ACK is known exactly for the resources that a stream ACKed last. For the others only a time by which they were
ACKed is known (`exact` is False). `ahead` converts the times of the streams to those of the caller's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice

from controlplane.envoy_types import ORDER
from controlplane.snapshot import NOTHING, Resource
from controlplane.xds.overlay import same
from controlplane.xds.refusals import ANYTHING, Batch
from controlplane.xds.subscription import Subscription
from controlplane.xds.view import StreamView

# Names in one part, at most.
_PART = 5_000


class State(IntEnum):
    """The state of a resource. The greater, the further from SYNCED, except for UNASKED."""

    UNASKED = 0
    SYNCED = 1
    ABSENT = 2
    WAITING = 3
    SENT = 4
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Refused:
    """A NACK of the content under a name. The client has ACKed no other content of that name since."""

    # None: the client refused the removal.
    content: Resource | None
    # The client's error message, and when it was received.
    message: str
    time: float
    # The first revision of which the client refused this content.
    revision: int


@dataclass(frozen=True, slots=True)
class ResourceStatus:
    """One name of one type at one node."""

    type_url: str
    name: str
    state: State
    # The content that the client ACKed last; None: nothing. `known` tells whether more than its version is known.
    held: Resource | None
    # The newest content; None: there should be no resource of this name.
    should: Resource | None
    # When the client ACKed what it holds. If not `exact`: a time by which it had. None when it holds nothing.
    time: float | None = None
    exact: bool = False
    # The revision of the content in flight; 0 if none is.
    sent: int = 0
    # Can be set in states other than REFUSED: then the refused content is outdated, or is tried again.
    refused: Refused | None = None

    @property
    def synced(self) -> bool:
        """Return whether the client holds the newest content of this name, or nothing if there is none."""
        return self.state in (State.SYNCED, State.ABSENT)


def known(resource: Resource) -> bool:
    """Return whether the content is known. Of a resource from an earlier stream, only the version may be known."""
    return ANYTHING not in resource.refs


def statuses(streams: Iterable[StreamView], ahead: float) -> Iterator[list[ResourceStatus]]:
    """Yield the state of each resource on each stream of one node, in parts, for `merged`.

    A part has resources of one type on one stream. Making it takes milliseconds, and streams may change between two parts.
    Times are those of the streams, plus `ahead` seconds.
    """
    streams = tuple(streams)
    subs = [sub for stream in streams for sub in stream.subscriptions]
    for sub in subs:
        each = _statuses(sub, ahead)
        while part := list(islice(each, _PART)):
            yield part
    if not any(sub.wildcard for sub in subs):
        return
    for type_url in ORDER:
        covering = [sub for sub in subs if sub.type_url == type_url]
        if not any(sub.wildcard for sub in covering):
            wanted = next((resources for stream in streams if (resources := stream.should_hold(type_url))), NOTHING)
            unasked = (r for n, r in wanted.items() if not any(sub.covers(n) for sub in covering))
            yield [ResourceStatus(type_url, r.name, State.UNASKED, None, r) for r in unasked]


def merged(parts: Iterable[list[ResourceStatus]]) -> list[ResourceStatus]:
    """Merge the parts of one node: in the order of types, by name within a type, each name once."""
    by_type: dict[str, dict[str, ResourceStatus]] = {t: {} for t in ORDER}
    for part in parts:
        for status in part:
            by_name = by_type.setdefault(status.type_url, {})
            before = by_name.get(status.name)
            if before is None or before.state < status.state:
                by_name[status.name] = status
    return [by_name[name] for by_name in by_type.values() for name in sorted(by_name)]


def _statuses(sub: Subscription, ahead: float) -> Iterator[ResourceStatus]:
    doubtful = sub.candidates()
    for batch in sub.inflight.values():
        doubtful.update(batch.contents)
    for name, resource in sub.latest.items():
        if name not in doubtful and sub.covers(name):
            yield ResourceStatus(sub.type_url, name, State.SYNCED, resource, resource, *_ack_time(sub, name, ahead))
    # A name from which the client unsubscribed while it was in flight does not count any more.
    for name in {n for n in doubtful if sub.covers(n)}.union(n for n in sub.names if n not in sub.latest):
        yield _status(sub, name, ahead)


def _status(sub: Subscription, name: str, ahead: float) -> ResourceStatus:
    held, should, refusal = sub.held.get(name), sub.latest.get(name), sub.refused.get(name)
    sent = next((b.revision for b in reversed(sub.inflight.values()) if _changes(b, name, held)), None)
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
    time, exact = _ack_time(sub, name, ahead) if held is not None else (None, False)
    refused = None if refusal is None else Refused(refusal.content, refusal.message, refusal.time + ahead, refusal.since)
    return ResourceStatus(sub.type_url, name, state, held, should, time, exact, sent or 0, refused)


def _changes(batch: Batch, name: str, held: Resource | None) -> bool:
    """Return whether a response has other content of `name` than the client holds."""
    return (batch.full_state or name in batch.contents) and not same(batch.contents.get(name), held)


def _ack_time(sub: Subscription, name: str, ahead: float) -> tuple[float, bool]:
    """Return when the client ACKed a name, and True; or a time by which it had, and False."""
    time = sub.times.by_name.get(name)
    return (sub.times.others + ahead, False) if time is None else (time + ahead, True)
