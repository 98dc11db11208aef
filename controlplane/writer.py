"""The one way a change is made: propose, compile, check, commit.

A change is a pure function from the head to the objects that it changes. The writer applies it to the newest head, compiles
the result for every audience, and checks new and changed resources against Envoy's rules. Only then it commits. When another
revision came first, it does all of that again on that one. Proposing and compiling run on a thread, so that streams are
served meanwhile, however large the change is.
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
from controlplane.domain import consistency
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

# Attempts to commit a change when other revisions come first, which only another writer of the same store causes.
TRIES = 5

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.I)


@dataclass(frozen=True, slots=True)
class Impact:
    """The effect of a change on the Envoys."""

    # Numbers of resources (new or changed, removed) over all audiences, by type URL in the order of `ORDER`; none at zero.
    types: Mapping[str, tuple[int, int]]
    # Connected nodes that get any resource.
    nodes: int
    # Bytes of resources for the node that gets the most; for an audience, when no node is connected.
    bytes_per_node: int
    # Sentences for people about effects that are valid and may be a surprise.
    warnings: tuple[str, ...] = ()


NO_IMPACT = Impact({}, 0, 0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a write."""

    # The state after it, or the state that it would lead to, if it was only validated.
    head: Head
    # The revision that was made, or would be; the newest one when nothing changed, and None when there is none yet.
    revision: Revision | None
    changed: bool
    impact: Impact
    # The snapshot of each of `audiences(head.state)`; empty when nothing was compiled.
    snapshots: Mapping[Audience, Snapshot]


class CachingCompiler:
    """A compiler that one thread uses at a time. A snapshot that was compiled for a check is also the one that is served."""

    def __init__(self, compiler: SnapshotCompiler) -> None:
        self._compiler = compiler
        self._lock = Lock()
        # The newest inputs (state, live endpoints, revision), and their snapshots.
        self._newest: deque[tuple[State, Endpoints, int, dict[Audience, Snapshot]]] = deque(maxlen=2)

    def compile(
        self, state: State, endpoints: Endpoints, audience: Audience, revision: int, previous: Snapshot | None = None
    ) -> Snapshot:
        """Return the snapshot as `Compiler.compile` does."""
        with self._lock:
            snapshots = next(
                (s for of, live, number, s in self._newest if of is state and live is endpoints and number == revision), None
            )
            if snapshots is None:
                snapshots = {}
                self._newest.append((state, endpoints, revision, snapshots))
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
        """Take a function that counts the connected nodes of each audience under a state, and a clock of the epoch."""
        self.store = store
        self._compiler = compiler
        self._validator = Validator()
        self._nodes = nodes
        self._clock = clock
        self._writing = asyncio.Lock()
        # The newest head that was compiled here, so that the next change compiles only what it changes.
        self._compiled: CompiledRevision | None = None
        self._commits: set[asyncio.Task[None]] = set()

    async def write(self, change: Change, draft: Draft, *, validate_only: bool = False) -> Outcome:
        """Make a change, or only validate it. `change` may run on another thread, and more than once.

        Errors: those of `change`; of objects that don't fit together, or that Envoy would refuse; INVALID_ARGUMENT for a
        request id that is no UUID4, or was used for another call; those of the store.
        """
        if draft.request_id and not _UUID4.fullmatch(draft.request_id):
            raise invalid("request_id", f"'{draft.request_id[:80]}' is not a UUID4", "INVALID_REQUEST_ID")
        draft = replace(draft, request_id=draft.request_id.lower())
        async with self._writing:
            if draft.request_id and not validate_only:
                replayed = await self._replayed(draft)
                if replayed is not None:
                    return replayed
            # The time of the call would be too early: the call may have waited for many others.
            draft = replace(draft, time=self._clock())
            for tries_left in reversed(range(TRIES)):
                before = await self._compile_head(self.store.head.value)
                after, changes = await asyncio.to_thread(self._propose, before, change, draft)
                if not changes:
                    return await self._unchanged(before, draft, validate_only)
                # Beside the commit: afterwards it would keep Envoys waiting.
                impact = asyncio.ensure_future(self._impact(before, after))
                impact.add_done_callback(_retrieve_error)
                try:
                    if not validate_only:
                        await self._shielded(self._commit(after, changes, draft))
                    return _outcome(before, after, changes, draft, await impact)
                except Error as error:
                    if error.reason != "CONFLICT" or not tries_left:
                        raise
                finally:
                    impact.cancel()
        raise AssertionError("the last try returns or raises")

    async def impact(self, before: Head, after: Head) -> Impact:
        """Return the effect on the Envoys of a change from one state to another."""
        return await self._impact(CompiledRevision(before, self._compiler), CompiledRevision(after, self._compiler))

    async def _compile_head(self, head: Head) -> CompiledRevision:
        """Return the head, compiled for every audience."""
        compiled = self._compiled
        if compiled is None or compiled.revision != head.number:
            compiled = compiled.next(head) if compiled else CompiledRevision(head, self._compiler)
            await asyncio.to_thread(_snapshots, compiled)
            self._compiled = compiled
        return compiled

    def _propose(self, before: CompiledRevision, change: Change, draft: Draft) -> tuple[CompiledRevision, Changes]:
        """Return the revision after a change, checked, and the objects that really differ in it."""
        head = before.head
        wanted = change(head).objects
        changes = Changes({n: wanted[n] for n in sorted(wanted) if wanted[n] != head.state.get(n)})
        if not changes:
            return before, changes
        proposed = head.after(changes, draft)
        consistency.check(head.state, proposed.state, changes.objects)
        after = before.next(proposed)
        old_snapshots = _snapshots(before)
        # Resources that several audiences get are checked once.
        checked: set[tuple[str, str, str]] = set()
        for audience, snapshot in _snapshots(after).items():
            old = old_snapshots[audience].resources if audience in old_snapshots else {}
            fresh = [r for t, resources in snapshot.resources.items() for r in diff(old.get(t, {}), resources).changed]
            unchecked = [r for r in fresh if (r.type_url, r.name, r.version) not in checked]
            try:
                self._validator.check(unchecked, snapshot)
            except Error as error:
                raise by_owner(error, unchecked) from None
            checked.update((r.type_url, r.name, r.version) for r in fresh)
        return after, changes

    async def _commit(self, after: CompiledRevision, changes: Changes, draft: Draft) -> None:
        await self.store.commit(after.head, changes, draft)
        self._compiled = after
        log.info(
            "revision made",
            revision=after.revision,
            action=draft.action.value,
            author=draft.author,
            reason=draft.reason,
            objects=len(changes.objects),
            names=list(changes.objects)[:8],
        )

    async def _shielded(self, commit: Coroutine[Any, Any, None]) -> None:
        """Make and log a revision, also when the caller is cancelled meanwhile."""
        task = asyncio.create_task(commit)
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        await asyncio.shield(task)

    async def _unchanged(self, before: CompiledRevision, draft: Draft, validate_only: bool) -> Outcome:
        head = before.head
        if draft.request_id and not validate_only:
            await self.store.remember(draft.request_id, draft.request_digest, head.number)
        revision = await self.store.revision(head.number) if head.number else None
        return Outcome(head, revision, False, NO_IMPACT, _snapshots(before))

    async def _replayed(self, draft: Draft) -> Outcome | None:
        """Return the answer that the same call got before; None for a new call."""
        remembered = await self.store.recall(draft.request_id)
        if remembered is None:
            return None
        if remembered.digest != draft.request_digest:
            raise invalid("request_id", f"{draft.request_id} was used for another call already", "REQUEST_ID_REUSED")
        number = remembered.revision
        head = await self.store.at(number)
        revision = await self.store.revision(number) if number else None
        if revision is None or revision.draft.request_id != draft.request_id:
            return Outcome(head, revision, False, NO_IMPACT, {})
        impact = await self.impact(await self.store.at(number - 1), head)
        return Outcome(head, revision, True, impact, {})

    async def _impact(self, before: CompiledRevision, after: CompiledRevision) -> Impact:
        earlier = self._nodes(before.head.state)
        # A node's audience follows from the gateways alone.
        same = before.head.state.gateways == after.head.state.gateways
        nodes = earlier if same else self._nodes(after.head.state)
        return await asyncio.to_thread(_impact, before, after, earlier, nodes)


def _retrieve_error(task: asyncio.Future[Any]) -> None:
    """Retrieve a task's error, so that asyncio does not log it where nobody waited for the task."""
    if not task.cancelled():
        task.exception()


def _outcome(before: CompiledRevision, after: CompiledRevision, changes: Changes, draft: Draft, impact: Impact) -> Outcome:
    pairs = {name: (before.head.state.get(name), obj) for name, obj in changes.objects.items()}
    return Outcome(after.head, Revision(after.revision, draft, pairs), True, impact, _snapshots(after))


def _impact(
    before: CompiledRevision, after: CompiledRevision, earlier: Mapping[Audience, int], nodes: Mapping[Audience, int]
) -> Impact:
    changed: dict[str, set[str]] = {t: set() for t in ORDER}
    removed: dict[str, set[str]] = {t: set() for t in ORDER}
    sent: dict[Audience, int] = {}
    affected = 0
    # Models that gRPC clients no longer get, and the number of those clients.
    lost: Counter[str] = Counter()
    possible = audiences(before.head.state) | audiences(after.head.state)
    # The audiences of gRPC clients count where such clients are connected.
    for audience in {a for a in possible if a.client is Client.ENVOY} | nodes.keys():
        old, new = before.snapshot(audience).resources, after.snapshot(audience).resources
        differences = {t: diff(old[t], new[t]) for t in ORDER}
        for type_url, difference in differences.items():
            changed[type_url].update(r.name for r in difference.changed)
            removed[type_url].update(difference.removed)
        if audience.client is Client.GRPC:
            lost.update(dict.fromkeys(differences[ROUTES].removed, nodes.get(audience, 0)))
        sent[audience] = sum(len(r.body) for d in differences.values() for r in d.changed)
        # Nodes that were in another audience before get a difference to that one.
        joined = max(0, nodes.get(audience, 0) - earlier.get(audience, 0))
        affected += nodes.get(audience, 0) if any(differences.values()) else joined
    types = {t: (len(changed[t]), len(removed[t] - changed[t])) for t in ORDER if changed[t] or removed[t]}
    sizes = [sent[a] for a, count in nodes.items() if count] or list(sent.values())
    return Impact(types, affected, max(sizes, default=0), tuple(_warnings(after.head.state, lost)))


def _warnings(state: State, lost: Mapping[str, int]) -> Iterator[str]:
    for name, clients in sorted(lost.items()):
        model = state.models.get(name)
        # A model that was deleted, or moved to another gateway, is no surprise.
        if clients and model is not None and any(obstacle(v) for v in model.versions if model.split.get(v.name)):
            who = f"{clients:,} connected gRPC clients are" if clients > 1 else "1 connected gRPC client is"
            yield f"{who} no longer given {', '.join(unreachable(model))}"


def _snapshots(revision: CompiledRevision) -> dict[Audience, Snapshot]:
    """Return the snapshot of every audience."""
    return {audience: revision.snapshot(audience) for audience in audiences(revision.head.state)}
