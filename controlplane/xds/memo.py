"""Streams that are alike are one, as long as they are.

A core (`delta.py`, `sotw.py`) is a machine: what it says and becomes follows from what it was told, and from nothing else. And
thousands of Envoys are told the same, and say the same: they ask for the same things in the same words, are offered the same
snapshots and ACK the same responses. So what comes of a word is worked out for the first of them, and the others follow:

    a *point*    a core that is never changed again. Streams that stand at one point share it
    a *step*     from a point, by something told, to another point: with the events and responses that come of it
    told         a request, a snapshot, that time has passed

    something is told            then
    there is a step for it       the stream goes on to where that leads, reports its events, sends its bytes
    there is none                the core is forked, the fork is told, and becomes a point, with a step that leads to it

Points where all is quiet are looked up by what they will do (`Stream.likeness`): streams that came by different ways, at
different times, meet there. A response has the same nonce for all that share it. Nonces grow, and a stream follows no step
whose nonces are not above all that it was sent: such a step is worked out anew. So a nonce comes once on a stream, though the
stream may come by a point twice.

That time has passed (`quiet`) is told at no place in particular, and what comes after would have to be worked out anew for
each place: 1,000 Envoys that take some seconds to sync would go ten ways. So it is told once nothing is in flight, where their
ways end.

What is not shared: who the client is (each is asked), and when it took what. A stream goes on alone, with a core of its own,
while it refuses something, while it is one of several of its client (what it may be sent depends on the others), and when it
goes a long way without being quiet, or subscribes to more than there is. It joins the others when it is quiet again.

Bounds: at most `MOST` bytes of steps are remembered, those made first go first, and none from a revision long gone. What
nobody stands at and no step leads to is no more. Requests are remembered as clients write them; large ones, whose names each
client puts in an order of its own, by `gist`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any
from weakref import WeakValueDictionary, ref

from google.protobuf.message import DecodeError

from controlplane.snapshot import Resource, Snapshot
from controlplane.xds.coordination import Coordination
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Event
from controlplane.xds.node import identified
from controlplane.xds.sotw import SotwStream
from controlplane.xds.stream import nonces_up_to_now
from controlplane.xds.subscription import Subscription

Core = DeltaStream | SotwStream

# Remembered at most: bytes of responses and requests, roughly; and from how many revisions back.
MOST = 256 * 1024 * 1024
_REVISIONS = 8
# What a step takes, and what it takes more for each name in which the core differs from a snapshot; bytes.
_STEP_WEIGHT, _NAME_WEIGHT = 8 * 1024, 150
# A core that differs in more names is not shared, and a request of more bytes is not remembered.
_HEAVY, _HUGE = 30_000, 1024 * 1024
# From one point, at most: a client that asks for something else each time does not keep what it asked for.
_FROM_ONE = 256
# How far a stream goes with others between two quiet points.
_FAR = 256
# A request above this many bytes is remembered by its gist.
_LARGE = 512
# Of so many resources it is known when a stream took them; of the others of a type, that it was earlier.
_TAKEN, _NOTED = 16, 16
# A stream that always has something in flight is told that time has passed after so many seconds more, when it next speaks.
_HUSH = 10.0
# A time that tells what a core has taken since it was forked.
_JUST_NOW = 1.0


class SharedState:
    """A core that streams share. It is never told anything."""

    __slots__ = ("__weakref__", "core", "far", "steps")

    def __init__(self, core: Core, far: int) -> None:
        self.core = core
        # Steps since it was quiet.
        self.far = far
        # By what is told.
        self.steps: dict[object, Transition] = {}


class Transition:
    """What comes of something told."""

    __slots__ = ("above", "events", "messages", "newest", "taken", "to")

    def __init__(
        self,
        to: SharedState,
        events: list[Event],
        messages: list[bytes],
        nonces: tuple[int, int],
        taken: tuple[tuple[str, str], ...],
    ) -> None:
        self.to, self.events, self.messages = to, tuple(events), tuple(messages)
        # The nonces of these messages are above the one and up to the other.
        self.above, self.newest = nonces
        # (type URL, name) of what the client took; without a name: all of the type.
        self.taken = taken


class TransitionMemo:
    """Points and steps of one process."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        # As they were made: the newest revision then, bytes, from where, by what.
        self._order: deque[tuple[int, int, SharedState, object]] = deque()
        self._bytes = 0
        self._newest = 0
        self._quiet: WeakValueDictionary[tuple[object, ...], SharedState] = WeakValueDictionary()
        self._starts: dict[tuple[object, ...], SharedState] = {}

    def start(self, kind: type[Core], type_url: str, ttl: int) -> SharedState:
        """Where streams begin whose clients have said who they are, and nothing else."""
        key = kind, type_url, ttl
        if key not in self._starts:
            core = kind(type_url, ttl)
            core.identified = True
            self._starts[key] = SharedState(core, 0)
        return self._starts[key]

    def point(self, core: Core, far: int) -> SharedState:
        """The point of a core that nobody else uses; of one like it, if there is one."""
        alike = core.likeness()
        if alike is None:
            return SharedState(core, far)
        return self._quiet.setdefault(alike, SharedState(core, 0))

    def note(self, point: SharedState, told: object, step: Transition, size: int) -> None:
        """Remembers a step, of about so many bytes."""
        if len(point.steps) >= _FROM_ONE:
            del point.steps[next(iter(point.steps))]
        point.steps[told] = step
        self._newest = max(self._newest, step.to.core.revision)
        self._order.append((self._newest, size, point, told))
        self._bytes += size
        while self._order and (self._bytes > self._most or self._order[0][0] < self._newest - _REVISIONS):
            _, size, old, forgotten = self._order.popleft()
            self._bytes -= size
            old.steps.pop(forgotten, None)


_book = TransitionMemo()


class MemoisedStream:
    """One stream, for the shell. To be used as a core is; see `Stream`."""

    __slots__ = (
        "__weakref__",
        "_book",
        "_core",
        "_hush",
        "_kind",
        "_newest",
        "_node",
        "_noted",
        "_out",
        "_point",
        "_taken",
        "_ttl",
        "_waiting",
        "now",
        "type_url",
    )

    def __init__(self, kind: type[Core], type_url: str = "", ttl: int = 0, book: TransitionMemo = _book) -> None:
        self.type_url = type_url
        self.now = 0.0
        self._kind, self._ttl, self._book = kind, ttl, book
        # Where it stands, or the core of its own; neither, until the client has said who it is.
        self._point: SharedState | None = None
        self._core: Core | None = None
        # Offered before that.
        self._waiting: Snapshot | None = None
        self._node: Coordination | None = None
        self._out: list[bytes] = []
        # Nonce of the newest response.
        self._newest = 0
        # Until when `quiet` may wait for the answers to what is in flight; 0: it does not wait.
        self._hush = 0.0
        # When the client took what it holds: (type URL, name), or without a name what else there is of a type. And what came
        # since, in order, at most _NOTED: to be folded in there, which most streams are never asked for.
        self._taken: dict[tuple[str, str], float] = {}
        self._noted: list[tuple[float, tuple[tuple[str, str], ...]]] = []

    # ---------------------------------------------------------------------------------------------------------- told

    def recall(self, data: bytes) -> list[Event] | None:
        """Takes a request, serialised, that another stream has made here before; None: it has to be parsed, and `receive`d."""
        point = self._point
        if point is None or self._node is not None:
            return None
        step = point.steps.get(data)
        if step is None and len(data) >= _LARGE:
            step = point.steps.get(gist(data))
        return self._go(step) if step is not None and step.above >= self._newest else None

    def _meet(self, node: Any) -> list[Event]:
        """The client says who it is."""
        events: list[Event] = [identified(node)]
        takes_ttl = self._ttl and self._kind.takes_ttl(node)
        self._point = self._book.start(self._kind, self.type_url, self._ttl if takes_ttl else 0)
        if self._waiting is not None:
            events += self.offer(self._waiting)
            self._waiting = None
        return events

    def receive(self, request: Any, data: bytes = b"") -> list[Event]:
        """Takes a request; `data` are its bytes, as far as they are at hand. Errors: INVALID_ARGUMENT."""
        events: list[Event] = []
        if self._point is None and self._core is None:
            events = self._meet(request.node)
        if self._node is not None and not self.types:
            self._node.begins(self, request.type_url)
        if len(data) > _HUGE or self._node is not None:
            self._leave_the_others()
        point, core = self._point, self._core
        if point is None:
            assert core is not None
            core.now = self.now
            return events + self._after(core.receive(request))
        told = _words(request)
        step = point.steps.get(told)
        if step is None or step.above < self._newest:
            return events + self._work_out(told, lambda core: core.receive(request), 4 * len(data))
        if data and not request.HasField("node"):
            # Told for the second time at least: it may well come again, and need not be parsed then.
            self._book.note(point, data, step, 2 * len(data))
            if len(data) >= _LARGE and has_gist(request, data):
                self._book.note(point, gist(data), step, 4 * len(data))
        return events + self._go(step)

    def offer(self, snapshot: Snapshot) -> list[Event]:
        """As `Stream.offer`."""
        point = self._point
        if point is None:
            if self._core is not None:
                return self._after(self._core.offer(snapshot))
            self._waiting = snapshot
            return []
        step = point.steps.get(id(snapshot))  # where there is one, it keeps the snapshot
        if step is None or step.above < self._newest:
            return self._work_out(id(snapshot), lambda core: core.offer(snapshot))
        return self._go(step)

    def quiet(self) -> list[Event]:
        """As `Stream.quiet`, once nothing is in flight."""
        if self._point is not None and self._point.core.busy:
            self._hush = self.now + _HUSH
            return []
        self._hush = 0.0
        return self._tell("quiet", lambda core: core.quiet())

    def isolate(self) -> list[Event]:
        """As `Stream.isolate`."""
        return self._tell("isolate", lambda core: core.isolate())

    def again(self) -> list[Event]:
        """As `Stream.again`."""
        return self._tell("again", lambda core: core.again())

    def heartbeat(self) -> None:
        """As `Stream.heartbeat`."""
        self._tell("heartbeat", lambda core: core.heartbeat() or [])

    def to_send(self) -> list[bytes]:
        """As `Stream.to_send`."""
        out = self._out
        if out:
            self._out = []
        return out

    def _tell(self, told: str, act: Callable[[Core], list[Event]]) -> list[Event]:
        point = self._point
        if point is None:
            return self._after(act(self._core)) if self._core is not None else []
        step = point.steps.get(told)
        return self._go(step) if step is not None and step.above >= self._newest else self._work_out(told, act)

    # -------------------------------------------------------------------------------------------------- with others

    def _go(self, step: Transition) -> list[Event]:
        self._point = step.to
        if step.messages:
            self._out.extend(step.messages)
            self._newest = step.newest
        if step.taken:
            self._noted.append((self.now, step.taken))
            if len(self._noted) > _NOTED:
                self._note_taken()
        events = list(step.events)
        if self._hush and (self.now >= self._hush or not step.to.core.busy):
            self._hush = 0.0
            events += self._tell("quiet", lambda core: core.quiet())
        return events

    def _work_out(self, told: object, act: Callable[[Core], list[Event]], size: int = 0) -> list[Event]:
        """What comes of something told for the first time. An error leaves all as it was."""
        point = self._point
        assert point is not None
        core = point.core.fork()
        core.now = _JUST_NOW
        above = core.nonce = nonces_up_to_now()
        events = act(core)
        if core.refuses or point.far >= _FAR or core.weight > _HEAVY:
            core = point.core.fork()
            self._take_over(core)
            return self._after(act(core))
        messages, taken = core.to_send(), _taken(core)
        step = Transition(self._book.point(core, point.far + 1), events, messages, (above, core.nonce), taken)
        weight = _STEP_WEIGHT + _NAME_WEIGHT * core.weight + sum(map(len, messages))
        self._book.note(point, told, step, weight + size)
        return self._go(step)

    def _note_taken(self) -> None:
        times = self._taken
        for now, taken in self._noted:
            for what in taken:
                if not what[1]:
                    for other in [w for w in times if w[0] == what[0]]:
                        del times[other]
                times.pop(what, None)
                times[what] = now
            while len(times) > _TAKEN:
                oldest = next(w for w in times if w[1])
                times[oldest[0], ""] = times.pop(oldest)
        self._noted = []

    # --------------------------------------------------------------------------------------------------------- alone

    def _leave_the_others(self) -> None:
        if self._point is not None:
            self._take_over(self._point.core.fork())

    def _take_over(self, core: Core) -> None:
        """From now on this is the stream's own core."""
        self._timed(core)
        core.shell, core.node = ref(self), self._node
        self._point, self._core = None, core

    def _after(self, events: list[Event]) -> list[Event]:
        """Something was told to the core of its own. Where that is like another's now, it is given up."""
        core = self._core
        assert core is not None
        if self._hush:
            self._hush = 0.0
            events = events + core.quiet()
        messages = core.to_send()
        if messages:
            self._out.extend(messages)
            self._newest = core.nonce
        if core.node is None and not core.refuses and core.likeness() is not None:
            self._taken, self._noted = {}, []
            for sub in core.subs:
                self._taken[sub.type_url, ""] = sub.taken_by
                self._taken.update({(sub.type_url, n): t for n, t in sub.taken.items()})
            _taken(core)
            core.shell = None
            self._point, self._core = self._book.point(core, 0), None
        return events

    def _timed(self, core: Core) -> None:
        """Tells a core when the client took what it holds."""
        self._note_taken()
        core.now = self.now
        for sub in core.subs:
            sub.now = self.now
            sub.taken = {n: t for (type_url, n), t in self._taken.items() if n and type_url == sub.type_url}
            sub.taken_by = self._taken.get((sub.type_url, ""), 0.0)

    # ----------------------------------------------------------------------------------------------------- to be read

    @property
    def node(self) -> Coordination | None:
        """As of `Stream`. While nothing was asked for, it stands at a point all the same."""
        return self._node

    @node.setter
    def node(self, node: Coordination | None) -> None:
        self._node = node
        if node is not None and self.types:
            self._leave_the_others()
        if self._core is not None:
            self._core.node = node

    @property
    def _now_at(self) -> Core | None:
        return self._point.core if self._point is not None else self._core

    @property
    def subs(self) -> tuple[Subscription, ...]:
        """As `Stream.subs`."""
        if self._point is None:
            return self._core.subs if self._core is not None else ()
        core = self._point.core.fork()
        self._timed(core)
        return core.subs

    @property
    def types(self) -> Collection[str]:
        """As `Stream.types`."""
        core = self._now_at
        return core.types if core is not None else ()

    def sub(self, type_url: str) -> Subscription | None:
        """As `Stream.sub`; its times are not to be read."""
        core = self._now_at
        return core.sub(type_url) if core is not None else None

    def should_hold(self, type_url: str) -> Mapping[str, Resource]:
        """As `Stream.should_hold`."""
        core = self._now_at
        return core.should_hold(type_url) if core is not None else {}

    @property
    def coming_back(self) -> bool:
        """As `Stream.coming_back`."""
        core = self._now_at
        return core is not None and core.coming_back

    @property
    def names(self) -> int:
        """As `Stream.names`."""
        core = self._now_at
        return core.names if core is not None else 0


def _taken(core: Core) -> tuple[tuple[str, str], ...]:
    """What a core has taken since it was forked; it forgets that."""
    found = []
    for sub in core.subs:
        if sub.taken_by == _JUST_NOW:
            found.append((sub.type_url, ""))
        found += [(sub.type_url, name) for name in sub.taken]
        sub.taken, sub.taken_by = {}, 0.0
    return tuple(found)


def _words(request: Any) -> tuple[object, ...]:
    """What a request says: equal for requests that mean the same. The client's identity is no part of it."""
    error = request.error_detail.message if request.HasField("error_detail") else None
    if hasattr(request, "resource_names"):
        return (request.type_url, request.response_nonce, error, request.version_info, frozenset(request.resource_names))
    return (
        request.type_url,
        request.response_nonce,
        error,
        frozenset(request.resource_names_subscribe),
        tuple(request.resource_names_unsubscribe),
        frozenset(request.initial_resource_versions.items()),
    )


# What comes before each name (field 3) and each initial version (field 5; SotW's nonce has it too).
_NAME, _VERSION = b"\x1a", b"\x2a"


def gist(data: bytes) -> tuple[bytes, frozenset[bytes], bytes, frozenset[bytes]]:
    """Equal for two serialised requests if they differ in the order of names alone. Of requests for which `has_gist`.

    What comes before the names, the names, what comes after them, initial versions; each of the latter with its length before
    it. The marks before those are all that is looked for, which costs a fraction of parsing.
    """
    head, *names = data.split(_NAME)
    if not names:
        head, *versions = data.split(_VERSION)
        return head, frozenset(), b"", frozenset(versions)
    last = names.pop()
    end = last[0] + 1 if last else 0
    names.append(last[:end])
    tail, *versions = last[end:].split(_VERSION)
    return head, frozenset(names), tail, frozenset(versions)


def has_gist(request: Any, data: bytes) -> bool:
    """Whether whatever has the gist of these bytes means just what this request does, which is what they say.

    It is so when the parts are each whole: no name and no version has a mark in it. For serialised messages, put one after
    another in any order, are the message that has all of their fields.
    """
    head, names, tail, versions = gist(data)
    if not all(p and p[0] == len(p) - 1 < 128 for p in (*names, *versions)):
        return False
    parse = type(request).FromString
    again = b"".join((head, *(_NAME + n for n in names), tail, *(_VERSION + v for v in versions)))
    try:
        parse(head), parse(tail)
        words = _words(parse(again))
    except DecodeError:
        return False
    once = hasattr(request, "resource_names") or len(versions) == len(request.initial_resource_versions)
    return once and words == _words(request)
