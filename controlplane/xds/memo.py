"""Memoise the protocol: streams in the same state that receive the same input share one computed transition.

A core (`delta.py`, `sotw.py`) is a deterministic machine: its output and its next state follow from its state and its input.
Thousands of Envoys are in the same state and get the same input: they send the same subscriptions, are offered the same
snapshots, and ACK the same responses. So a transition is computed for the first of them only:

    state         a core that never changes again. Streams in the same state share it
    input         a request, a snapshot, or a call such as `assume_complete`
    transition    from a state, by an input, to another state: with the events and the responses that it produces

    a stream gets an input, and         then
    its state has a transition for it   the stream goes to the transition's state, reports its events, sends its responses
    its state has none                  the core is forked, and the fork gets the input. The fork becomes a new state, and the
                                        transition to it is remembered

Idle states are looked up by a fingerprint of their future behaviour (`Stream.fingerprint`). So streams come to share a state
even if they connected at different times and received different responses before. Every stream that shares a response receives
it with the same nonce. Nonces grow, and a stream uses a transition only if its nonces are above all that the stream was sent;
otherwise the transition is computed anew. So a stream never receives a nonce twice, although it may come to a state twice.

`assume_complete` is called at a fixed time, whatever state the stream is in. 1,000 Envoys that take some seconds to sync would
be in ten different states then, and all later transitions would be computed ten times. So the memo delays the call until
nothing is in flight.

Two things are not shared: the client's identity, and the times of its ACKs. A stream has a core of its own

- while its client refuses something;
- while it is one of several streams of a client, because what it may send depends on the others;
- when it makes too many steps without becoming idle;
- when it subscribes to many more names than exist.

It shares a state again when it is idle again.

Bounds: the memo holds at most `MOST_BYTES` of transitions. It forgets the oldest first, and those of revisions that are more
than `_MOST_REVISIONS` old. A state is freed when no stream is in it and no transition leads to it.

Requests are looked up by their bytes, before they are parsed. In large requests each client has its own order of names, so
they are looked up by a key that ignores the order (`unordered_key`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any
from weakref import WeakValueDictionary, ref

from controlplane.snapshot import NOTHING, Resources, Snapshot
from controlplane.xds.context import Context
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Event
from controlplane.xds.node import identified
from controlplane.xds.request_key import canonical, has_unordered_key, unordered_key
from controlplane.xds.sotw import SotwStream
from controlplane.xds.subscription import Subscription
from controlplane.xds.view import OtherStreams

Core = DeltaStream | SotwStream
# (type URL, name) of a resource that a client ACKed; without a name: every resource of the type.
Acked = tuple[str, str]

# The memo's bounds: bytes of responses and requests, roughly; and how many revisions old a transition may be.
MOST_BYTES = 256 * 1024 * 1024
_MOST_REVISIONS = 8
# The estimated size of a transition in bytes: a fixed part, and a part for each name at which the core differs from a
# snapshot.
_TRANSITION_BYTES, _NAME_BYTES = 8 * 1024, 150
# A core that differs at more names than this is not shared.
_MOST_DIFFERENCES = 30_000
# A request of more bytes than this is not remembered.
_LARGEST_REQUEST = 1024 * 1024
# Transitions from one state, at most: a client may ask for something else each time. When there are more, the oldest goes.
_MOST_TRANSITIONS = 256
# Steps that a stream makes in shared states between two idle states, at most.
_MOST_STEPS = 256
# A request of at least this many bytes is remembered by its unordered key, too.
_LARGE_REQUEST = 512
# A stream keeps the times of the ACKs of this many resources; the other resources of a type have one time together. And it
# keeps this many steps whose times are not folded into those yet.
_MOST_TIMES, _MOST_UNFOLDED = 16, 16
# `assume_complete` waits this many seconds at most for a stream that always has something in flight. Then it is done at the
# next input.
_LONGEST_DELAY = 10.0
# The time in a fork: it marks what the core ACKed since it was forked.
_JUST_NOW = 1.0


class SharedState:
    """A core that streams share. It never changes: an input goes to a fork of it."""

    __slots__ = ("__weakref__", "core", "steps", "transitions")

    def __init__(self, core: Core, steps: int) -> None:
        self.core = core
        # Steps since it was idle.
        self.steps = steps
        # By input.
        self.transitions: dict[object, Transition] = {}


class Transition:
    """The result of an input in a state: the next state, events and responses."""

    __slots__ = ("above", "acked", "events", "messages", "newest", "to")

    def __init__(
        self,
        to: SharedState,
        events: list[Event],
        messages: list[bytes],
        nonces: tuple[int, int],
        acked: tuple[Acked, ...],
    ) -> None:
        self.to, self.events, self.messages = to, tuple(events), tuple(messages)
        # Each nonce of these messages is greater than `above`, and at most `newest`.
        self.above, self.newest = nonces
        self.acked = acked


class TransitionMemo:
    """The shared states and transitions of one process."""

    def __init__(self, context: Context | None = None, most: int = MOST_BYTES) -> None:
        """`most`: bytes, roughly, that the transitions may take."""
        self.context = context if context is not None else Context()
        self._most = most
        # Oldest first. For each transition: the newest revision at that time, its bytes, the state and the input.
        self._order: deque[tuple[int, int, SharedState, object]] = deque()
        self._bytes = 0
        self._newest = 0
        # By fingerprint. Weak: a state lives as long as a stream or a transition refers to it.
        self._idle_states: WeakValueDictionary[tuple[object, ...], SharedState] = WeakValueDictionary()
        # By service, variant and TTL.
        self._initial: dict[tuple[object, ...], SharedState] = {}

    def initial_state(self, kind: type[Core], type_url: str, ttl: int) -> SharedState:
        """Return the state of a stream whose client is identified, and has not subscribed to anything."""
        key = kind, type_url, ttl
        if key not in self._initial:
            core = kind(type_url, ttl, self.context)
            core.identified = True
            self._initial[key] = SharedState(core, 0)
        return self._initial[key]

    def state_of(self, core: Core, steps: int) -> SharedState:
        """Return a shared state for a core: an existing one with its fingerprint, or a new one that takes over the core."""
        fingerprint = core.fingerprint()
        if fingerprint is None:
            return SharedState(core, steps)
        return self._idle_states.setdefault(fingerprint, SharedState(core, 0))

    def remember(self, state: SharedState, input: object, transition: Transition, size: int) -> None:
        """Remember a transition. `size`: bytes, roughly."""
        if len(state.transitions) >= _MOST_TRANSITIONS:
            del state.transitions[next(iter(state.transitions))]
        state.transitions[input] = transition
        self._newest = max(self._newest, transition.to.core.revision)
        self._order.append((self._newest, size, state, input))
        self._bytes += size
        while self._order and (self._bytes > self._most or self._order[0][0] < self._newest - _MOST_REVISIONS):
            _, size, old, forgotten = self._order.popleft()
            self._bytes -= size
            old.transitions.pop(forgotten, None)


class _Times:
    """The times at which one client ACKed what it holds. A stream keeps them itself while it shares its state."""

    __slots__ = ("_folded", "unfolded")

    def __init__(self) -> None:
        # By resource, oldest first.
        self._folded: dict[Acked, float] = {}
        # The newest, in order, at most _MOST_UNFOLDED. Folding is delayed, because the times of most streams are never read.
        self.unfolded: list[tuple[float, tuple[Acked, ...]]] = []

    def fold(self) -> None:
        """Move the newest times into `_folded`."""
        times = self._folded
        for now, acked in self.unfolded:
            for resource in acked:
                if not resource[1]:
                    for other in [r for r in times if r[0] == resource[0]]:
                        del times[other]
                times.pop(resource, None)
                times[resource] = now
            while len(times) > _MOST_TIMES:
                oldest = next(r for r in times if r[1])
                times[oldest[0], ""] = times.pop(oldest)
        self.unfolded = []

    def write_to(self, core: Core, now: float) -> None:
        """Write these times into a core."""
        self.fold()
        core.now = now
        for sub in core.subscriptions:
            sub.now = now
            sub.times.by_name = {n: t for (type_url, n), t in self._folded.items() if n and type_url == sub.type_url}
            sub.times.others = self._folded.get((sub.type_url, ""), 0.0)

    def take_from(self, core: Core) -> None:
        """Move a core's times here."""
        self._folded, self.unfolded = {}, []
        for sub in core.subscriptions:
            self._folded[sub.type_url, ""] = sub.times.others
            self._folded.update({(sub.type_url, n): t for n, t in sub.times.by_name.items()})
        _take_acked(core)


class _Reader:
    """Reads the core that a stream has at the moment: that of a shared state, or its own."""

    __slots__ = ("_core", "_state")

    # One of the two is set, once the client is identified. Before that, both are None.
    _state: SharedState | None
    _core: Core | None

    @property
    def _readable(self) -> Core | None:
        return self._state.core if self._state is not None else self._core

    @property
    def types(self) -> Collection[str]:
        """Type URLs that the client has asked for; see `StreamState.types`."""
        core = self._readable
        return core.types if core is not None else ()

    def subscription(self, type_url: str) -> Subscription | None:
        """Return the subscription to a type; see `StreamState.subscription`. Its times have no meaning."""
        core = self._readable
        return core.subscription(type_url) if core is not None else None

    def should_hold(self, type_url: str) -> Resources:
        """Return all resources of a type in the newest snapshot; see `StreamState.should_hold`."""
        core = self._readable
        return core.should_hold(type_url) if core is not None else NOTHING

    @property
    def returning(self) -> bool:
        """Return whether the client holds resources from an earlier stream; see `StreamState.returning`."""
        core = self._readable
        return core is not None and core.returning

    @property
    def name_count(self) -> int:
        """The number of names that the client subscribes to; see `StreamState.name_count`."""
        core = self._readable
        return core.name_count if core is not None else 0


class MemoisedStream(_Reader):
    """One stream, with the methods of a core; see `Stream`."""

    __slots__ = (
        "__weakref__",
        "_assume_by",
        "_coordination",
        "_kind",
        "_memo",
        "_newest",
        "_offered",
        "_out",
        "_times",
        "_ttl",
        "now",
        "type_url",
    )

    def __init__(self, kind: type[Core], type_url: str = "", ttl: int = 0, *, memo: TransitionMemo) -> None:
        self._state = self._core = None
        self.type_url = type_url
        self.now = 0.0
        self._kind, self._ttl, self._memo = kind, ttl, memo
        # The newest snapshot that was offered before the client was identified.
        self._offered: Snapshot | None = None
        self._coordination: OtherStreams | None = None
        self._out: list[bytes] = []
        # The nonce of the newest response.
        self._newest = 0
        # `assume_complete` waits until nothing is in flight, but no longer than until this time; 0: it does not wait.
        self._assume_by = 0.0
        self._times = _Times()

    # -------------------------------------------------------------------------------------------------------- inputs

    def recall(self, data: bytes) -> Sequence[Event] | None:
        """Take a serialised request, if its transition is remembered. None: the caller parses it, and calls `receive`."""
        state = self._state
        if state is None or self._coordination is not None:
            return None
        transition = state.transitions.get(data)
        if transition is None and len(data) >= _LARGE_REQUEST:
            transition = state.transitions.get(unordered_key(data))
        return self._follow(transition) if transition is not None and transition.above >= self._newest else None

    def _identify(self, node: Any) -> Sequence[Event]:
        """Report the client's identity, and go to the initial state."""
        events: list[Event] = [identified(node)]
        with_ttl = self._ttl and self._kind.supports_ttl(node)
        self._state = self._memo.initial_state(self._kind, self.type_url, self._ttl if with_ttl else 0)
        if self._offered is not None:
            events += self.offer(self._offered)
            self._offered = None
        return events

    def receive(self, request: Any, data: bytes = b"") -> Sequence[Event]:
        """Take a request. `data` are its bytes, or empty if the caller does not have them. Errors: INVALID_ARGUMENT."""
        events: Sequence[Event] = ()
        if self._state is None and self._core is None:
            events = self._identify(request.node)
        if self._coordination is not None and not self.types:
            self._coordination.before_first_request(self, request.type_url)
        if len(data) > _LARGEST_REQUEST or self._coordination is not None:
            self._leave_state()
        state, core = self._state, self._core
        if state is None:
            assert core is not None
            core.now = self.now
            return [*events, *self._after(core.receive(request))]
        meaning = canonical(request)
        transition = state.transitions.get(meaning)
        if transition is None or transition.above < self._newest:
            return [*events, *self._compute(meaning, lambda core: core.receive(request), 4 * len(data))]
        if data and not request.HasField("node"):
            # This is at least the second such request, so more are likely. They need not be parsed.
            self._memo.remember(state, data, transition, 2 * len(data))
            if len(data) >= _LARGE_REQUEST and has_unordered_key(request, data):
                self._memo.remember(state, unordered_key(data), transition, 4 * len(data))
        return [*events, *self._follow(transition)] if events else self._follow(transition)

    def offer(self, snapshot: Snapshot) -> Sequence[Event]:
        """Take the newest snapshot; see `Stream.offer`."""
        state = self._state
        if state is None:
            if self._core is not None:
                return self._after(self._core.offer(snapshot))
            self._offered = snapshot
            return []
        transition = state.transitions.get(id(snapshot))  # a transition keeps its snapshot alive
        if transition is None or transition.above < self._newest:
            return self._compute(id(snapshot), lambda core: core.offer(snapshot))
        return self._follow(transition)

    def assume_complete(self) -> Sequence[Event]:
        """Assume that subscriptions are complete, once nothing is in flight; see `Stream.assume_complete`."""
        if self._state is not None and self._state.core.awaits_answer:
            self._assume_by = self.now + _LONGEST_DELAY
            return []
        self._assume_by = 0.0
        return self._step("assume_complete", lambda core: core.assume_complete())

    def retry_in_parts(self) -> Sequence[Event]:
        """Try in parts what was refused together with other resources; see `Stream.retry_in_parts`."""
        return self._step("retry_in_parts", lambda core: core.retry_in_parts())

    def reconsider(self) -> Sequence[Event]:
        """Send what has waited for another stream of the node; see `Stream.reconsider`."""
        return self._step("reconsider", lambda core: core.reconsider())

    def adopt(self) -> Sequence[Event]:
        """Send the newest snapshot to a client that is held back; see `Stream.adopt`."""
        return self._step("adopt", lambda core: core.adopt())

    def heartbeat(self) -> None:
        """Renew the TTL of all that the client holds; see `Stream.heartbeat`."""
        self._step("heartbeat", lambda core: core.heartbeat() or [])

    def to_send(self) -> list[bytes]:
        """Take out the serialised responses, in the order to send; see `Stream.to_send`."""
        out = self._out
        if out:
            self._out = []
        return out

    # ------------------------------------------------------------------------------------------------ in a shared state

    def _step(self, input: str, act: Callable[[Core], list[Event]]) -> Sequence[Event]:
        """Take an input that has no content. `act` applies it to a core."""
        state = self._state
        if state is None:
            return self._after(act(self._core)) if self._core is not None else []
        transition = state.transitions.get(input)
        if transition is not None and transition.above >= self._newest:
            return self._follow(transition)
        return self._compute(input, act)

    def _follow(self, transition: Transition) -> Sequence[Event]:
        self._state = transition.to
        if transition.messages:
            self._out.extend(transition.messages)
            self._newest = transition.newest
        if transition.acked:
            unfolded = self._times.unfolded  # inline, because this is the hot path
            unfolded.append((self.now, transition.acked))
            if len(unfolded) > _MOST_UNFOLDED:
                self._times.fold()
        if self._assume_by and (self.now >= self._assume_by or not transition.to.core.awaits_answer):
            self._assume_by = 0.0
            return (*transition.events, *self._step("assume_complete", lambda core: core.assume_complete()))
        return transition.events

    def _compute(self, input: object, act: Callable[[Core], list[Event]], size: int = 0) -> Sequence[Event]:
        """Compute the transition for an input, and remember it. An error changes nothing."""
        state = self._state
        assert state is not None
        core = state.core.fork()
        core.now = _JUST_NOW
        above = core.nonce = self._memo.context.next_nonce()
        events = act(core)
        differences = _count_differences(core)
        if core.has_refusals or state.steps >= _MOST_STEPS or differences > _MOST_DIFFERENCES:
            core = state.core.fork()
            self._take_over(core)
            return self._after(act(core))
        messages, acked = core.to_send(), _take_acked(core)
        transition = Transition(self._memo.state_of(core, state.steps + 1), events, messages, (above, core.nonce), acked)
        own_size = _TRANSITION_BYTES + _NAME_BYTES * differences + sum(map(len, messages))
        self._memo.remember(state, input, transition, own_size + size)
        return self._follow(transition)

    # ------------------------------------------------------------------------------------------ with a core of its own

    def _leave_state(self) -> None:
        if self._state is not None:
            self._take_over(self._state.core.fork())

    def _take_over(self, core: Core) -> None:
        """Make `core` the stream's own core."""
        self._times.write_to(core, self.now)
        core.owner, core.coordination = ref(self), self._coordination
        self._state, self._core = None, core

    def _after(self, events: list[Event]) -> list[Event]:
        """Finish an input to the stream's own core. The stream gives the core up if it can share a state again."""
        core = self._core
        assert core is not None
        if self._assume_by:
            self._assume_by = 0.0
            events = events + core.assume_complete()
        messages = core.to_send()
        if messages:
            self._out.extend(messages)
            self._newest = core.nonce
        if core.coordination is None and not core.has_refusals and core.fingerprint() is not None:
            self._times.take_from(core)
            core.owner = None
            self._state, self._core = self._memo.state_of(core, 0), None
        return events

    # ----------------------------------------------------------------------------------------------------- to be read

    @property
    def coordination(self) -> OtherStreams | None:
        """The node's streams that this is one of, or None; see `StreamState.coordination`.

        A stream whose client has asked for nothing is in a shared state all the same.
        """
        return self._coordination

    @coordination.setter
    def coordination(self, coordination: OtherStreams | None) -> None:
        self._coordination = coordination
        if coordination is not None and self.types:
            self._leave_state()
        if self._core is not None:
            self._core.coordination = coordination

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Every subscription, in the order of types, to be read; see `StreamState.subscriptions`."""
        if self._state is None:
            return self._core.subscriptions if self._core is not None else ()
        core = self._state.core.fork()
        self._times.write_to(core, self.now)
        return core.subscriptions


def _take_acked(core: Core) -> tuple[Acked, ...]:
    """Return the resources that were ACKed since the core was forked. Removes the times from the core."""
    acked: list[Acked] = []
    for sub in core.subscriptions:
        if sub.times.others == _JUST_NOW:
            acked.append((sub.type_url, ""))
        acked += [(sub.type_url, name) for name in sub.times.by_name]
        sub.times.by_name, sub.times.others = {}, 0.0
    return tuple(acked)


def _count_differences(core: Core) -> int:
    """Return the number of names at which a core differs from shared mappings."""
    return sum(
        len(sub.names.more) + len(sub.names.less) + len(sub.held.over) + len(sub.requested) + len(sub.resend)
        for sub in core.subscriptions
    )
