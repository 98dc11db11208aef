"""The one way a change is made: propose, compile, check, commit.

    propose    apply the change, a pure function of the head, to the newest head
    compile    compile the result for every audience
    check      check each resource that is new or different against Envoy's rules
    commit     append the revision to the store, by compare-and-set

When another revision was committed first, all of this is done again on that one. Everything but the commit runs on a thread,
so streams are served meanwhile, however large the change is.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import structlog

from controlplane.compiler import audiences
from controlplane.compiler.impact import NO_IMPACT, Impact, impact_of
from controlplane.compiler.validation import Validator, by_owner
from controlplane.domain import consistency
from controlplane.domain.endpoints import Endpoints
from controlplane.domain.revision import Draft, Head, Revision
from controlplane.domain.state import Changes, State
from controlplane.errors import Error, invalid
from controlplane.published import CompiledRevision, SnapshotCompiler
from controlplane.snapshot import Audience, DiffCache, Snapshot
from controlplane.store import Store

log = structlog.get_logger("writer")

Change = Callable[[Head], Changes]

# Attempts to commit a change when other revisions are committed first. Only another writer of the same store causes a second.
ATTEMPTS = 5

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.I)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a write."""

    # The head after the change; with `validate_only`, the head that it would be.
    head: Head
    # The revision that was committed, or would be; the newest one when nothing changed, and None when there is none yet.
    revision: Revision | None
    changed: bool
    impact: Impact
    # By audience, for each of `audiences(head.state)`. Empty when nothing was compiled.
    snapshots: Mapping[Audience, Snapshot]


class CachingCompiler:
    """A compiler that threads share: the writer compiles a change to check it, and the publisher gets the same snapshots.

    One thread compiles at a time. The cache holds the snapshots of the two newest inputs.
    """

    def __init__(self, compiler: SnapshotCompiler) -> None:
        self._compiler = compiler
        self._lock = Lock()
        # The newest inputs (state, live endpoints, revision), and their snapshots.
        self._newest: deque[tuple[State, Endpoints, int, dict[Audience, Snapshot]]] = deque(maxlen=2)

    def compile(
        self, state: State, endpoints: Endpoints, audience: Audience, revision: int, previous: Snapshot | None = None
    ) -> Snapshot:
        """Return the snapshot of an audience, as `Compiler.compile` does. Inputs are compared by identity."""
        with self._lock:
            snapshots = next(
                (s for st, ep, number, s in self._newest if st is state and ep is endpoints and number == revision), None
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
        count_nodes: Callable[[State], Mapping[Audience, int]] = lambda state: {},
        clock: Callable[[], float] = time.time,
        diffs: DiffCache | None = None,
    ) -> None:
        """Write to `store`.

        `count_nodes` returns the number of connected nodes by the audience that they have under a state. `clock` returns
        seconds since the epoch.
        """
        self.store = store
        self._compiler = compiler
        self._validator = Validator()
        self._count_nodes = count_nodes
        self._clock = clock
        # Shared with the streams, where they are in this process: each needs the same diffs.
        self._diffs = diffs if diffs is not None else DiffCache()
        self._writing = asyncio.Lock()
        # The newest head that was compiled here, so that the next change compiles only what it changes.
        self._compiled: CompiledRevision | None = None
        self._commits: set[asyncio.Task[None]] = set()

    async def write(self, change: Change, draft: Draft, *, validate_only: bool = False) -> Outcome:
        """Commit a change, or with `validate_only` return what committing it would do.

        `change` may run on another thread, and more than once.

        Errors: those of `change`; the objects don't fit together, or Envoy would refuse them; INVALID_ARGUMENT for a request
        id that is not a UUID4, or was used for another call; the store's.
        """
        if draft.request_id and not _UUID4.fullmatch(draft.request_id):
            raise invalid("request_id", f"'{draft.request_id[:80]}' is not a UUID4", "INVALID_REQUEST_ID")
        draft = replace(draft, request_id=draft.request_id.lower())
        async with self._writing:
            if draft.request_id and not validate_only:
                replayed = await self._replayed(draft)
                if replayed is not None:
                    return replayed
            # Now, not when the call arrived: it may have waited for other writes.
            draft = replace(draft, time=self._clock())
            for attempts_left in reversed(range(ATTEMPTS)):
                before = await self._compiled_head(self.store.head.value)
                after, changes = await asyncio.to_thread(self._propose, before, change, draft)
                if not changes:
                    return await self._unchanged(before, draft, validate_only)
                # Worked out while the disk writes. Afterwards it would compete with pushing the revision to the Envoys.
                impact = asyncio.ensure_future(self._impact(before, after))
                impact.add_done_callback(_retrieve_error)
                try:
                    if not validate_only:
                        await self._shielded(self._commit(after, changes, draft))
                    return _outcome(before, after, changes, draft, await impact)
                except Error as error:
                    if error.reason != "CONFLICT" or not attempts_left:
                        raise
                finally:
                    impact.cancel()
        raise AssertionError("the last attempt returns or raises")

    async def impact(self, before: Head, after: Head) -> Impact:
        """Return the impact of going from one head to another."""
        return await self._impact(CompiledRevision(before, self._compiler), CompiledRevision(after, self._compiler))

    async def _compiled_head(self, head: Head) -> CompiledRevision:
        """Return the head, compiled for every audience."""
        compiled = self._compiled
        if compiled is None or compiled.revision != head.number:
            compiled = compiled.next(head) if compiled else CompiledRevision(head, self._compiler)
            await asyncio.to_thread(_snapshots, compiled)
            self._compiled = compiled
        return compiled

    def _propose(self, before: CompiledRevision, change: Change, draft: Draft) -> tuple[CompiledRevision, Changes]:
        """Apply a change, and check the result. Returns the revision after it, and the objects that really differ."""
        head = before.head
        wanted = change(head).objects
        changes = Changes({n: wanted[n] for n in sorted(wanted) if wanted[n] != head.state.get(n)})
        if not changes:
            return before, changes
        proposed = head.after(changes, draft)
        consistency.check(head.state, proposed.state, changes.objects)
        after = before.next(proposed)
        self._check(_snapshots(before), _snapshots(after))
        return after, changes

    def _check(self, before: Mapping[Audience, Snapshot], after: Mapping[Audience, Snapshot]) -> None:
        """Check the resources that are new or different, each once. Errors: of the object that a resource comes from."""
        checked: set[tuple[str, str, str]] = set()
        for audience, snapshot in after.items():
            old = before[audience].resources if audience in before else {}
            changed = [
                r for t, resources in snapshot.resources.items() for r in self._diffs.diff(old.get(t, {}), resources).changed
            ]
            unchecked = [r for r in changed if (r.type_url, r.name, r.version) not in checked]
            try:
                self._validator.check(unchecked, snapshot)
            except Error as error:
                raise by_owner(error, unchecked) from None
            checked.update((r.type_url, r.name, r.version) for r in changed)

    async def _commit(self, after: CompiledRevision, changes: Changes, draft: Draft) -> None:
        await self.store.commit(after.head, changes, draft)
        self._compiled = after
        log.info(
            "revision committed",
            revision=after.revision,
            action=draft.action.value,
            author=draft.author,
            reason=draft.reason,
            objects=len(changes.objects),
            names=list(changes.objects)[:8],
        )

    async def _shielded(self, commit: Coroutine[Any, Any, None]) -> None:
        """Run a commit to its end, and log it, even if the caller is cancelled meanwhile."""
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
        """Return the outcome that the same call had before; None for a new call."""
        earlier = await self.store.recall(draft.request_id)
        if earlier is None:
            return None
        if earlier.digest != draft.request_digest:
            raise invalid("request_id", f"{draft.request_id} was used for another call already", "REQUEST_ID_REUSED")
        head = await self.store.at(earlier.revision)
        revision = await self.store.revision(earlier.revision) if earlier.revision else None
        if revision is None or revision.draft.request_id != draft.request_id:
            return Outcome(head, revision, False, NO_IMPACT, {})
        impact = await self.impact(await self.store.at(earlier.revision - 1), head)
        return Outcome(head, revision, True, impact, {})

    async def _impact(self, before: CompiledRevision, after: CompiledRevision) -> Impact:
        nodes_before = self._count_nodes(before.state)
        # A node's audience depends on the gateways only.
        same_gateways = before.state.gateways == after.state.gateways
        nodes_after = nodes_before if same_gateways else self._count_nodes(after.state)
        return await asyncio.to_thread(impact_of, before, after, nodes_before, nodes_after, self._diffs)


def _retrieve_error(task: asyncio.Future[Any]) -> None:
    """Mark a task's error as seen, so that asyncio does not report it when nobody awaits the task."""
    if not task.cancelled():
        task.exception()


def _outcome(before: CompiledRevision, after: CompiledRevision, changes: Changes, draft: Draft, impact: Impact) -> Outcome:
    pairs = {name: (before.state.get(name), obj) for name, obj in changes.objects.items()}
    return Outcome(after.head, Revision(after.revision, draft, pairs), True, impact, _snapshots(after))


def _snapshots(compiled: CompiledRevision) -> dict[Audience, Snapshot]:
    return {audience: compiled.snapshot(audience) for audience in audiences(compiled.state)}
