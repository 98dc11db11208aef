"""The one way a change is made: propose, compile, check, commit.

A change is a pure function from the head to the objects it changes. It is tried on the newest head; what comes of it is
compiled for every audience, and what would be sent anew is checked against Envoy's rules; only then it is committed. When
another revision came first, all of that is done again, on that one. Trying and compiling happen on a thread, so that the
streams are served meanwhile, however large the change is.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import structlog

from controlplane.compiler import audiences
from controlplane.compiler.proxyless import obstacle, unreachable
from controlplane.compiler.validation import Validator, by_owner
from controlplane.domain.endpoints import Endpoints
from controlplane.domain.revision import Draft, Head, Revision
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import ORDER, ROUTES
from controlplane.errors import Error, invalid
from controlplane.published import CompiledRevision, SnapshotCompiler
from controlplane.snapshot import Audience, Client, Snapshot, diff
from controlplane.store import Store

log = structlog.get_logger("writer")

Change = Callable[[Head], Changes]

# How often a change is tried when other revisions come first; only another writer of the same store makes it more than once.
TRIES = 5

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.I)


@dataclass(frozen=True, slots=True)
class Impact:
    """What a change is to the Envoys."""

    # By type URL, in the order of `ORDER`, those with any: names that are (new or changed, gone), over all audiences.
    types: Mapping[str, tuple[int, int]]
    # Connected nodes that are sent anything.
    nodes: int
    # Bytes of the resources that one node is sent, for the node that is sent most; of the audience, when none is connected.
    bytes_per_node: int
    # What is right and may yet be a surprise, in sentences for people.
    warnings: tuple[str, ...] = ()


NO_IMPACT = Impact({}, 0, 0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a write."""

    # The state after it; what it would be, if it was only validated.
    head: Head
    # The revision that was made, or would be; the newest one when nothing changed, and None when there is none yet.
    revision: Revision | None
    changed: bool
    impact: Impact
    # What each of `audiences(head.state)` holds after it; empty when nothing was to be compiled.
    snapshots: Mapping[Audience, Snapshot]


class CachingCompiler:
    """A compiler that one thread uses at a time; what was compiled to check a change is not compiled again to be served."""

    def __init__(self, compiler: SnapshotCompiler) -> None:
        self._compiler = compiler
        self._lock = Lock()
        # The newest inputs (state, live endpoints, revision), and their snapshots.
        self._made: deque[tuple[State, Endpoints, int, dict[Audience, Snapshot]]] = deque(maxlen=2)

    def compile(
        self, state: State, endpoints: Endpoints, audience: Audience, revision: int, previous: Snapshot | None = None
    ) -> Snapshot:
        """As `Compiler.compile`."""
        with self._lock:
            snapshots = next(
                (s for of, with_, number, s in self._made if of is state and with_ is endpoints and number == revision), None
            )
            if snapshots is None:
                snapshots = {}
                self._made.append((state, endpoints, revision, snapshots))
            if audience not in snapshots:
                snapshots[audience] = self._compiler.compile(state, endpoints, audience, revision, previous)
            return snapshots[audience]


class Writer:
    """Makes changes, one at a time."""

    def __init__(
        self,
        store: Store,
        compiler: CachingCompiler,
        nodes: Callable[[State], Mapping[Audience, int]] = lambda state: {},
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`nodes` counts the connected nodes by the audience that they are under a state; `clock` is of the epoch."""
        self.store = store
        self._compiler = compiler
        self._validator = Validator()
        self._nodes = nodes
        self._clock = clock
        self._writing = asyncio.Lock()
        # The newest head that was compiled here, so that the next change compiles what it changes and no more.
        self._world: CompiledRevision | None = None
        self._commits: set[asyncio.Task[None]] = set()

    async def write(self, change: Change, draft: Draft, *, validate_only: bool = False) -> Outcome:
        """Makes a change, or finds out what it would make. `change` may run on another thread, and more than once.

        Errors: those of `change`; the objects don't fit together, or Envoy would refuse them; INVALID_ARGUMENT for a request
        id that is no UUID4, or was used for another call; what the store raises.
        """
        if draft.request_id and not _UUID4.fullmatch(draft.request_id):
            raise invalid("request_id", f"'{draft.request_id[:80]}' is not a UUID4", "INVALID_REQUEST_ID")
        draft = replace(draft, request_id=draft.request_id.lower())
        async with self._writing:
            if draft.request_id and not validate_only:
                replayed = await self._replayed(draft)
                if replayed is not None:
                    return replayed
            # Not when it was called: it may have waited for many others.
            draft = replace(draft, time=self._clock())
            for tries_left in reversed(range(TRIES)):
                before = await self._world_of(self.store.head.value)
                after, changes = await asyncio.to_thread(self._propose, before, change, draft)
                if not changes:
                    return await self._unchanged(before, draft, validate_only)
                # Found out while the disk is at work, so that it keeps no Envoy waiting afterwards.
                impact = asyncio.ensure_future(self._impact(before, after))
                impact.add_done_callback(_seen)
                try:
                    if not validate_only:
                        await self._to_its_end(self._commit(before, after, changes, draft))
                    return _outcome(before, after, changes, draft, await impact)
                except Error as error:
                    if error.reason != "CONFLICT" or not tries_left:
                        raise
                finally:
                    impact.cancel()
        raise AssertionError("the last try returns or raises")

    async def impact(self, before: Head, after: Head) -> Impact:
        """What lies between two states for the Envoys."""
        return await self._impact(CompiledRevision(before, self._compiler), CompiledRevision(after, self._compiler))

    async def _world_of(self, head: Head) -> CompiledRevision:
        """The head, compiled for every audience."""
        world = self._world
        if world is None or world.revision != head.number:
            world = world.next(head) if world else CompiledRevision(head, self._compiler)
            await asyncio.to_thread(_compile, world)
            self._world = world
        return world

    def _propose(self, before: CompiledRevision, change: Change, draft: Draft) -> tuple[CompiledRevision, Changes]:
        """The world after a change, checked, and what really differs in it."""
        head = before.head
        wanted = change(head).objects
        changes = Changes({n: wanted[n] for n in sorted(wanted) if wanted[n] != head.state.get(n)})
        if not changes:
            return before, changes
        head.state.applied(changes)  # or it says what does not fit
        after = before.next(head.after(changes, draft))
        known = _compile(before)
        checked: set[tuple[str, str, str]] = set()
        for audience, snapshot in _compile(after).items():
            old = known[audience].resources if audience in known else {}
            fresh = [r for t, held in snapshot.resources.items() for r in diff(old.get(t, {}), held).changed]
            # What several audiences are sent is checked once.
            unchecked = [r for r in fresh if (r.type_url, r.name, r.version) not in checked]
            try:
                self._validator.check(unchecked, snapshot)
            except Error as error:
                raise by_owner(error, unchecked) from None
            checked.update((r.type_url, r.name, r.version) for r in fresh)
        return after, changes

    async def _commit(self, before: CompiledRevision, after: CompiledRevision, changes: Changes, draft: Draft) -> None:
        await self.store.commit(after.head, changes, draft)
        self._world = after
        log.info(
            "revision made",
            revision=after.revision,
            action=draft.action.value,
            author=draft.author,
            reason=draft.reason,
            objects=len(changes.objects),
            names=list(changes.objects)[:8],
        )

    async def _to_its_end(self, commit: Coroutine[Any, Any, None]) -> None:
        """A revision that was asked for is made, and told of, also when the caller goes away meanwhile."""
        task = asyncio.create_task(commit)
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        await asyncio.shield(task)

    async def _unchanged(self, before: CompiledRevision, draft: Draft, validate_only: bool) -> Outcome:
        head = before.head
        if draft.request_id and not validate_only:
            await self.store.remember(draft.request_id, draft.request_digest, head.number)
        revision = await self.store.revision(head.number) if head.number else None
        return Outcome(head, revision, False, NO_IMPACT, _compile(before))

    async def _replayed(self, draft: Draft) -> Outcome | None:
        """The answer that the same call was given before; None for a call that is new."""
        known = await self.store.recall(draft.request_id)
        if known is None:
            return None
        if known.digest != draft.request_digest:
            raise invalid("request_id", f"{draft.request_id} was used for another call already", "REQUEST_ID_REUSED")
        head = await self.store.at(known.revision)
        revision = await self.store.revision(known.revision) if known.revision else None
        if revision is None or revision.draft.request_id != draft.request_id:
            return Outcome(head, revision, False, NO_IMPACT, {})
        impact = await self.impact(await self.store.at(known.revision - 1), head)
        return Outcome(head, revision, True, impact, {})

    async def _impact(self, before: CompiledRevision, after: CompiledRevision) -> Impact:
        earlier = self._nodes(before.head.state)
        # Which node is of which audience follows from the gateways alone.
        same = before.head.state.gateways == after.head.state.gateways
        nodes = earlier if same else self._nodes(after.head.state)
        return await asyncio.to_thread(_impact, before, after, earlier, nodes)


def _seen(task: asyncio.Future[Any]) -> None:
    """What went wrong in it is known, also where nobody waited for it."""
    if not task.cancelled():
        task.exception()


def _outcome(before: CompiledRevision, after: CompiledRevision, changes: Changes, draft: Draft, impact: Impact) -> Outcome:
    pairs = {name: (before.head.state.get(name), obj) for name, obj in changes.objects.items()}
    return Outcome(after.head, Revision(after.revision, draft, pairs), True, impact, _compile(after))


def _impact(
    before: CompiledRevision, after: CompiledRevision, earlier: Mapping[Audience, int], nodes: Mapping[Audience, int]
) -> Impact:
    changed: dict[str, set[str]] = {t: set() for t in ORDER}
    removed: dict[str, set[str]] = {t: set() for t in ORDER}
    sent: dict[Audience, int] = {}
    touched = 0
    lost: Counter[str] = Counter()  # models that gRPC clients are not given any more, and how many clients that is
    possible = audiences(before.head.state) | audiences(after.head.state)
    # What gRPC clients would be sent counts where there are any.
    for audience in {a for a in possible if a.client is Client.ENVOY} | nodes.keys():
        old, new = before.snapshot(audience).resources, after.snapshot(audience).resources
        between = {t: diff(old[t], new[t]) for t in ORDER}
        for type_url, difference in between.items():
            changed[type_url].update(r.name for r in difference.changed)
            removed[type_url].update(difference.removed)
        if audience.client is Client.GRPC:
            lost.update(dict.fromkeys(between[ROUTES].removed, nodes.get(audience, 0)))
        sent[audience] = sum(len(r.body) for d in between.values() for r in d.changed)
        # Nodes that come from another audience are sent the difference to that one; that there is one is all that counts here.
        come = max(0, nodes.get(audience, 0) - earlier.get(audience, 0))
        touched += nodes.get(audience, 0) if any(between.values()) else come
    types = {t: (len(changed[t]), len(removed[t] - changed[t])) for t in ORDER if changed[t] or removed[t]}
    sizes = [sent[a] for a, count in nodes.items() if count] or list(sent.values())
    return Impact(types, touched, max(sizes, default=0), tuple(_warnings(after.head.state, lost)))


def _warnings(state: State, lost: Mapping[str, int]) -> Iterator[str]:
    for name, clients in sorted(lost.items()):
        model = state.models.get(name)
        # One that is gone, or moved to another gateway, was meant to be.
        if clients and model is not None and any(obstacle(v) for v in model.versions if model.split.get(v.name)):
            who = f"{clients:,} connected gRPC clients are" if clients > 1 else "1 connected gRPC client is"
            yield f"{who} no longer given {', '.join(unreachable(model))}"


def _compile(world: CompiledRevision) -> dict[Audience, Snapshot]:
    return {audience: world.snapshot(audience) for audience in audiences(world.head.state)}
