"""Memoise the protocol: streams in the same state that receive the same input share one computed transition.

A core (`delta.py`, `sotw.py`) is a deterministic machine: its output and its next state follow from its state and its input.
Thousands of Envoys are in the same state and get the same input: they subscribe to the same resources in the same words, are
offered the same snapshots, and ACK the same responses. So a transition is computed for the first of them only:

    state         a core that never changes again. Streams in the same state share it
    input         a request, a snapshot, or that time has passed
    transition    from a state, by an input, to another state: with the events and the responses that it produces

    a stream gets an input, and         then
    its state has a transition for it   the stream goes to the transition's state, reports its events, sends its responses
    its state has none                  the core is forked, and the fork gets the input. The fork becomes a new state, and the
                                        transition to it is remembered

Idle states are looked up by a fingerprint of their future behaviour (`Stream.fingerprint`): so streams that arrive at
different times and by different ways meet there. Every stream that shares a response receives it with the same nonce. Nonces
grow, and a stream uses a transition only if its nonces are above all that the stream was sent; otherwise the transition is
computed anew. So a stream never receives a nonce twice, although it may come to a state twice.

`assume_complete` happens at no particular state, and all later transitions would have to be computed for each state where it
does: 1,000 Envoys that take some seconds to sync would be in ten different states. So it waits until nothing is in flight.

Not shared are the client's identity (each client states its own) and the times at which a client took resources. A stream has
a core of its own while its client has refused something, while it is one of several streams of a client (what it may be sent
depends on the others), when it makes too many steps without becoming idle, and when it subscribes to more names than exist. It
shares a state again when it is idle again.

Bounds: the memo holds at most `MOST` bytes of transitions. It forgets the oldest first, and those of long superseded
revisions. A state that no stream is in and no transition leads to is freed. Requests are remembered by their bytes. In large
requests each client has its own order of names: they are remembered by a key that ignores the order (`unordered_key`).
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
# What a transition takes, and what it takes more for each name in which the core differs from a snapshot; bytes.
_STEP_WEIGHT, _NAME_WEIGHT = 8 * 1024, 150
# A core that differs in more names is not shared, and a request of more bytes is not remembered.
_HEAVY, _HUGE = 30_000, 1024 * 1024
# From one state, at most: a client that asks for something else each time does not keep what it asked for.
_FROM_ONE = 256
# How far a stream goes with others between two quiet points.
_FAR = 256
# A request above this many bytes is remembered by its gist.
_LARGE = 512
# Of so many resources it is known when a stream took them; of the others of a type, that it was earlier.
_TAKEN, _NOTED = 16, 16
# A stream that always has something in flight is input that time has passed after so many seconds more, when it next speaks.
_HUSH = 10.0
# A time that tells what a core has taken since it was forked.
_JUST_NOW = 1.0


class SharedState:
    """A core that streams share. It is never input anything."""

    __slots__ = ("__weakref__", "core", "far", "transitions")

    def __init__(self, core: Core, far: int) -> None:
        self.core = core
        # Steps since it was quiet.
        self.far = far
        # By what is input.
        self.transitions: dict[object, Transition] = {}


class Transition:
    """What comes of something input."""

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
        self._idle_states: WeakValueDictionary[tuple[object, ...], SharedState] = WeakValueDictionary()
        self._starts: dict[tuple[object, ...], SharedState] = {}

    def start(self, kind: type[Core], type_url: str, ttl: int) -> SharedState:
        """Where streams begin whose clients have said who they are, and nothing else."""
        key = kind, type_url, ttl
        if key not in self._starts:
            core = kind(type_url, ttl)
            core.identified = True
            self._starts[key] = SharedState(core, 0)
        return self._starts[key]

    def state(self, core: Core, far: int) -> SharedState:
        """The state of a core that nobody else uses; of one like it, if there is one."""
        alike = core.fingerprint()
        if alike is None:
            return SharedState(core, far)
        return self._idle_states.setdefault(alike, SharedState(core, 0))

    def note(self, state: SharedState, input: object, transition: Transition, size: int) -> None:
        """Remembers a transition, of about so many bytes."""
        if len(state.transitions) >= _FROM_ONE:
            del state.transitions[next(iter(state.transitions))]
        state.transitions[input] = transition
        self._newest = max(self._newest, transition.to.core.revision)
        self._order.append((self._newest, size, state, input))
        self._bytes += size
        while self._order and (self._bytes > self._most or self._order[0][0] < self._newest - _REVISIONS):
            _, size, old, forgotten = self._order.popleft()
            self._bytes -= size
            old.transitions.pop(forgotten, None)


_memo = TransitionMemo()


class MemoisedStream:
    """One stream, for the owner. To be used as a core is; see `Stream`."""

    __slots__ = (
        "__weakref__",
        "_coordination",
        "_core",
        "_hush",
        "_kind",
        "_memo",
        "_newest",
        "_noted",
        "_out",
        "_state",
        "_taken",
        "_ttl",
        "_waiting",
        "now",
        "type_url",
    )

    def __init__(self, kind: type[Core], type_url: str = "", ttl: int = 0, memo: TransitionMemo = _memo) -> None:
        self.type_url = type_url
        self.now = 0.0
        self._kind, self._ttl, self._memo = kind, ttl, memo
        # Where it stands, or the core of its own; neither, until the client has said who it is.
        self._state: SharedState | None = None
        self._core: Core | None = None
        # Offered before that.
        self._waiting: Snapshot | None = None
        self._coordination: Coordination | None = None
        self._out: list[bytes] = []
        # Nonce of the newest response.
        self._newest = 0
        # Until when `assume_complete` may wait for the answers to what is in flight; 0: it does not wait.
        self._hush = 0.0
        # When the client took what it holds: (type URL, name), or without a name what else there is of a type. And what came
        # since, in order, at most _NOTED: to be folded in there, which most streams are never asked for.
        self._taken: dict[tuple[str, str], float] = {}
        self._noted: list[tuple[float, tuple[tuple[str, str], ...]]] = []

    # ---------------------------------------------------------------------------------------------------------- input

    def recall(self, data: bytes) -> list[Event] | None:
        """Takes a request, serialised, that another stream has made here before; None: it has to be parsed, and `receive`d."""
        state = self._state
        if state is None or self._coordination is not None:
            return None
        transition = state.transitions.get(data)
        if transition is None and len(data) >= _LARGE:
            transition = state.transitions.get(unordered_key(data))
        return self._go(transition) if transition is not None and transition.above >= self._newest else None

    def _meet(self, node: Any) -> list[Event]:
        """The client says who it is."""
        events: list[Event] = [identified(node)]
        takes_ttl = self._ttl and self._kind.takes_ttl(node)
        self._state = self._memo.start(self._kind, self.type_url, self._ttl if takes_ttl else 0)
        if self._waiting is not None:
            events += self.offer(self._waiting)
            self._waiting = None
        return events

    def receive(self, request: Any, data: bytes = b"") -> list[Event]:
        """Takes a request; `data` are its bytes, as far as they are at hand. Errors: INVALID_ARGUMENT."""
        events: list[Event] = []
        if self._state is None and self._core is None:
            events = self._meet(request.node)
        if self._coordination is not None and not self.types:
            self._coordination.before_first_request(self, request.type_url)
        if len(data) > _HUGE or self._coordination is not None:
            self._leave_the_others()
        state, core = self._state, self._core
        if state is None:
            assert core is not None
            core.now = self.now
            return events + self._after(core.receive(request))
        input = _words(request)
        transition = state.transitions.get(input)
        if transition is None or transition.above < self._newest:
            return events + self._work_out(input, lambda core: core.receive(request), 4 * len(data))
        if data and not request.HasField("node"):
            # Told for the second time at least: it may well come again, and need not be parsed then.
            self._memo.note(state, data, transition, 2 * len(data))
            if len(data) >= _LARGE and has_unordered_key(request, data):
                self._memo.note(state, unordered_key(data), transition, 4 * len(data))
        return events + self._go(transition)

    def offer(self, snapshot: Snapshot) -> list[Event]:
        """As `Stream.offer`."""
        state = self._state
        if state is None:
            if self._core is not None:
                return self._after(self._core.offer(snapshot))
            self._waiting = snapshot
            return []
        transition = state.transitions.get(id(snapshot))  # where there is one, it keeps the snapshot
        if transition is None or transition.above < self._newest:
            return self._work_out(id(snapshot), lambda core: core.offer(snapshot))
        return self._go(transition)

    def assume_complete(self) -> list[Event]:
        """As `Stream.assume_complete`, once nothing is in flight."""
        if self._state is not None and self._state.core.awaits_answer:
            self._hush = self.now + _HUSH
            return []
        self._hush = 0.0
        return self._tell("assume_complete", lambda core: core.assume_complete())

    def retry_in_parts(self) -> list[Event]:
        """As `Stream.retry_in_parts`."""
        return self._tell("retry_in_parts", lambda core: core.retry_in_parts())

    def reconsider(self) -> list[Event]:
        """As `Stream.reconsider`."""
        return self._tell("reconsider", lambda core: core.reconsider())

    def heartbeat(self) -> None:
        """As `Stream.heartbeat`."""
        self._tell("heartbeat", lambda core: core.heartbeat() or [])

    def to_send(self) -> list[bytes]:
        """As `Stream.to_send`."""
        out = self._out
        if out:
            self._out = []
        return out

    def _tell(self, input: str, act: Callable[[Core], list[Event]]) -> list[Event]:
        state = self._state
        if state is None:
            return self._after(act(self._core)) if self._core is not None else []
        transition = state.transitions.get(input)
        return (
            self._go(transition) if transition is not None and transition.above >= self._newest else self._work_out(input, act)
        )

    # -------------------------------------------------------------------------------------------------- with others

    def _go(self, transition: Transition) -> list[Event]:
        self._state = transition.to
        if transition.messages:
            self._out.extend(transition.messages)
            self._newest = transition.newest
        if transition.taken:
            self._noted.append((self.now, transition.taken))
            if len(self._noted) > _NOTED:
                self._note_taken()
        events = list(transition.events)
        if self._hush and (self.now >= self._hush or not transition.to.core.awaits_answer):
            self._hush = 0.0
            events += self._tell("assume_complete", lambda core: core.assume_complete())
        return events

    def _work_out(self, input: object, act: Callable[[Core], list[Event]], size: int = 0) -> list[Event]:
        """What comes of something input for the first time. An error leaves all as it was."""
        state = self._state
        assert state is not None
        core = state.core.fork()
        core.now = _JUST_NOW
        above = core.nonce = nonces_up_to_now()
        events = act(core)
        if core.has_refusals or state.far >= _FAR or core.difference_count > _HEAVY:
            core = state.core.fork()
            self._take_over(core)
            return self._after(act(core))
        messages, taken = core.to_send(), _taken(core)
        transition = Transition(self._memo.state(core, state.far + 1), events, messages, (above, core.nonce), taken)
        weight = _STEP_WEIGHT + _NAME_WEIGHT * core.difference_count + sum(map(len, messages))
        self._memo.note(state, input, transition, weight + size)
        return self._go(transition)

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
        if self._state is not None:
            self._take_over(self._state.core.fork())

    def _take_over(self, core: Core) -> None:
        """From now on this is the stream's own core."""
        self._timed(core)
        core.owner, core.coordination = ref(self), self._coordination
        self._state, self._core = None, core

    def _after(self, events: list[Event]) -> list[Event]:
        """Something was input to the core of its own. Where that is like another's now, it is given up."""
        core = self._core
        assert core is not None
        if self._hush:
            self._hush = 0.0
            events = events + core.assume_complete()
        messages = core.to_send()
        if messages:
            self._out.extend(messages)
            self._newest = core.nonce
        if core.coordination is None and not core.has_refusals and core.fingerprint() is not None:
            self._taken, self._noted = {}, []
            for sub in core.subscriptions:
                self._taken[sub.type_url, ""] = sub.taken_by
                self._taken.update({(sub.type_url, n): t for n, t in sub.taken.items()})
            _taken(core)
            core.owner = None
            self._state, self._core = self._memo.state(core, 0), None
        return events

    def _timed(self, core: Core) -> None:
        """Tells a core when the client took what it holds."""
        self._note_taken()
        core.now = self.now
        for sub in core.subscriptions:
            sub.now = self.now
            sub.taken = {n: t for (type_url, n), t in self._taken.items() if n and type_url == sub.type_url}
            sub.taken_by = self._taken.get((sub.type_url, ""), 0.0)

    # ----------------------------------------------------------------------------------------------------- to be read

    @property
    def coordination(self) -> Coordination | None:
        """As of `Stream`. While nothing was asked for, it stands at a state all the same."""
        return self._coordination

    @coordination.setter
    def coordination(self, node: Coordination | None) -> None:
        self._coordination = node
        if node is not None and self.types:
            self._leave_the_others()
        if self._core is not None:
            self._core.coordination = node

    @property
    def _now_at(self) -> Core | None:
        return self._state.core if self._state is not None else self._core

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """As `Stream.subscriptions`."""
        if self._state is None:
            return self._core.subscriptions if self._core is not None else ()
        core = self._state.core.fork()
        self._timed(core)
        return core.subscriptions

    @property
    def types(self) -> Collection[str]:
        """As `Stream.types`."""
        core = self._now_at
        return core.types if core is not None else ()

    def subscription(self, type_url: str) -> Subscription | None:
        """As `Stream.sub`; its times are not to be read."""
        core = self._now_at
        return core.subscription(type_url) if core is not None else None

    def should_hold(self, type_url: str) -> Mapping[str, Resource]:
        """As `Stream.should_hold`."""
        core = self._now_at
        return core.should_hold(type_url) if core is not None else {}

    @property
    def returning(self) -> bool:
        """As `Stream.returning`."""
        core = self._now_at
        return core is not None and core.returning

    @property
    def name_count(self) -> int:
        """As `Stream.name_count`."""
        core = self._now_at
        return core.name_count if core is not None else 0


def _taken(core: Core) -> tuple[tuple[str, str], ...]:
    """What a core has taken since it was forked; it forgets that."""
    found = []
    for sub in core.subscriptions:
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


def unordered_key(data: bytes) -> tuple[bytes, frozenset[bytes], bytes, frozenset[bytes]]:
    """Equal for two serialised requests if they differ in the order of names alone. Of requests for which `has_unordered_key`.

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


def has_unordered_key(request: Any, data: bytes) -> bool:
    """Whether whatever has the gist of these bytes means just what this request does, which is what they say.

    It is so when the parts are each whole: no name and no version has a mark in it. For serialised messages, put one after
    another in any order, are the message that has all of their fields.
    """
    head, names, tail, versions = unordered_key(data)
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
