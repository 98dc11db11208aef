"""The writer, the only way to change desired state. Each change goes through four steps.

    propose    apply the change, a pure function of the head, to the newest head
    compile    compile the result for every audience
    check      check each resource that is new or different against Envoy's rules, and what the connected nodes would lose
    commit     append the revision to the store, by compare-and-set

If another revision was committed in the meantime, all steps are repeated on the new head. All steps but the commit run on a
thread. So the event loop serves the streams even while a large change is compiled.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Protocol

import structlog

from controlplane.compiler import NO_META, audiences
from controlplane.compiler.changed import call_functions
from controlplane.compiler.functions import NO_FUNCTIONS, Functions
from controlplane.compiler.impact import NO_IMPACT, Impact, impact_of
from controlplane.compiler.least_versions import Outdated
from controlplane.compiler.patches import is_about_patches
from controlplane.compiler.reach import (
    NOTHING_SILENT,
    Transition,
    VersionName,
    losses_of,
    opened_addresses,
    replaced_versions,
)
from controlplane.compiler.unpatched import UnpatchedCompiler
from controlplane.compiler.validation import Validator, by_owner
from controlplane.domain import consistency
from controlplane.domain.cuts import NO_CUT, NO_LOSSES, CutPermit, Loss, Losses, LossKind, check_cut, in_order
from controlplane.domain.default_models import missing_defaults
from controlplane.domain.endpoints import Endpoints
from controlplane.domain.patch_functions import with_hashes
from controlplane.domain.revision import Action, Draft, Head, ObjectMeta, Revision
from controlplane.domain.scopes import with_scopes
from controlplane.domain.state import Changes, State
from controlplane.errors import Code, Error, abbreviated, invalid
from controlplane.probe import Prober, Target, VersionProbe, failures_in_words, is_known, replaced, rising
from controlplane.published import CompiledRevision, SnapshotCompiler
from controlplane.snapshot import Audience, DiffCache, Snapshot
from controlplane.store import Store

log = structlog.get_logger("writer")

Change = Callable[[Head], Changes]


class ConnectedNodes(Protocol):
    """The nodes that are connected now; `NodeTransitions` is one.

    Transitions also have the nodes that are expected back after a start of the control plane: they may lose something, too.
    """

    # Returns the number of nodes of each audience under a state.
    def by_audience(self, state: State) -> Mapping[Audience, int]: ...

    # Returns the variants of xDS that the nodes of each audience use; empty if all use delta.
    def variants(self) -> Mapping[Audience, Collection[str]]: ...

    # Returns the transitions that the nodes would make from one state to another.
    def transitions(self, before: Head, after: State) -> Collection[Transition]: ...

    # Returns the ids of the nodes of each of these transitions. Transitions without a node are left out.
    def nodes_of(self, transitions: Collection[Transition], before: Head, after: State) -> Mapping[Transition, list[str]]: ...

    # Returns the listeners that nodes refuse: by the node's id, the refused revisions and the addresses of their listeners.
    def refused_listeners(self) -> Mapping[str, Sequence[tuple[int, frozenset[str]]]]: ...

    # Returns the nodes that are too old for what they would need that they did not need before.
    def outdated(self, before: Head, after: State) -> Sequence[Outdated]: ...


class NoNodes(ConnectedNodes):
    """No node is connected."""

    def by_audience(self, state: State) -> Mapping[Audience, int]:
        """Return no counts."""
        return {}

    def variants(self) -> Mapping[Audience, Collection[str]]:
        """Return no variants."""
        return {}

    def transitions(self, before: Head, after: State) -> Collection[Transition]:
        """Return no transitions."""
        return ()

    def nodes_of(self, transitions: Collection[Transition], before: Head, after: State) -> Mapping[Transition, list[str]]:
        """Return no nodes."""
        return {}

    def refused_listeners(self) -> Mapping[str, Sequence[tuple[int, frozenset[str]]]]:
        """Return no nodes."""
        return {}

    def outdated(self, before: Head, after: State) -> Sequence[Outdated]:
        """Return no nodes."""
        return ()


# Number of attempts to commit a change. More than one is needed only if another process writes to the same store.
ATTEMPTS = 5

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.I)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a write."""

    # The head after the change. With `validate_only`, the head that a commit would lead to.
    head: Head
    # The revision that was committed, or would be with `validate_only`. If nothing changed, the newest revision; None if there
    # is no revision yet.
    revision: Revision | None
    changed: bool
    impact: Impact
    # By audience, for each audience of `audiences(head.state)`. Empty for a repeated request, for which nothing is compiled.
    snapshots: Mapping[Audience, Snapshot]


class CachingCompiler:
    """A compiler with a cache. The writer compiles a change to check it, and then the publisher gets the same snapshots.

    Several threads may use it, and one compiles at a time. The cache holds the snapshots of the two newest inputs.
    """

    def __init__(self, compiler: SnapshotCompiler) -> None:
        self._compiler = compiler
        self._lock = Lock()
        # The newest inputs: state, live endpoints, revision, and the snapshots compiled from them so far.
        self._newest: deque[tuple[State, Endpoints, int, dict[Audience, Snapshot]]] = deque(maxlen=2)

    def compile(
        self,
        state: State,
        endpoints: Endpoints,
        audience: Audience,
        revision: int,
        previous: Snapshot | None = None,
        meta: Mapping[str, ObjectMeta] = NO_META,
    ) -> Snapshot:
        """Return the snapshot of an audience, as `Compiler.compile` does. State and endpoints are compared by identity."""
        with self._lock:
            snapshots = self._snapshots_of(state, endpoints, revision)
            if audience not in snapshots:
                snapshots[audience] = self._compiler.compile(state, endpoints, audience, revision, previous, meta)
            return snapshots[audience]

    def _snapshots_of(self, state: State, endpoints: Endpoints, revision: int) -> dict[Audience, Snapshot]:
        """Return the cached snapshots of an input. Add an empty entry for a new input."""
        for cached_state, cached_endpoints, number, snapshots in self._newest:
            if cached_state is state and cached_endpoints is endpoints and number == revision:
                return snapshots
        self._newest.append((state, endpoints, revision, {}))
        return self._newest[-1][-1]


class Writer:
    """Makes changes, one at a time."""

    def __init__(
        self,
        store: Store,
        compiler: CachingCompiler,
        nodes: ConnectedNodes | None = None,
        clock: Callable[[], float] = time.time,
        diffs: DiffCache | None = None,
        prober: Prober | None = None,
        functions: Functions = NO_FUNCTIONS,
    ) -> None:
        """Write to `store`.

        `nodes` are the connected nodes; None: there are none. `clock` returns seconds since the epoch. Without a `prober`, no
        version is probed. `functions` are those that patches may name, as the compiler has them.
        """
        self._functions = functions
        self.store = store
        self._compiler = compiler
        self._validator = Validator()
        self._nodes = nodes or NoNodes()
        self._clock = clock
        # Shared with the streams of this process, which need the same diffs.
        self._diffs = diffs if diffs is not None else DiffCache()
        self._prober = prober or Prober(enabled=False)
        self.lock = asyncio.Lock()
        # The newest compiled head. The next change reuses every resource that it does not change.
        self._compiled: CompiledRevision | None = None
        self._commits: set[asyncio.Task[None]] = set()
        # The error of the newest commit if the store could not write it, as when the disk is full. None after a success.
        self.failure: Error | None = None

    async def write(
        self,
        change: Change,
        draft: Draft,
        *,
        permit: CutPermit = NO_CUT,
        probe: bool = True,
        validate_only: bool = False,
    ) -> Outcome:
        """Commit a change, or with `validate_only` return what committing it would do.

        `change` may run on another thread, and more than once. `permit` says whether the change may cut traffic. With `probe`,
        endpoints that replace all of a version that has traffic are probed, which takes a second at most.

        Errors: those of `change`; FAILED_PRECONDITION if the objects don't fit together; errors for resources that Envoy would
        refuse; FAILED_PRECONDITION / CUTS_TRAFFIC, except with `validate_only`; INVALID_ARGUMENT for a request id that is not
        a UUID4 or was used for another request; those of the store.
        """
        if draft.request_id and not _UUID4.fullmatch(draft.request_id):
            raise invalid("request_id", f"'{draft.request_id[:80]}' is not a UUID4", "INVALID_REQUEST_ID")
        draft = replace(draft, request_id=draft.request_id.lower())
        probes: dict[Target, VersionProbe] = {}
        for _ in range(ATTEMPTS):
            async with self.lock:
                outcome = await self._attempt(change, draft, permit, validate_only, probes if probe else None)
            if isinstance(outcome, Outcome):
                return outcome
            # Other writes go on while the endpoints are probed. After that the change is applied to the newest head again.
            probes.update(zip(outcome, await self._prober.probe(outcome), strict=True))
        message = f"what this change replaces changed {ATTEMPTS} times while its endpoints were probed: try again"
        raise Error(Code.ABORTED, "CONFLICT", message)

    async def _attempt(
        self,
        change: Change,
        draft: Draft,
        permit: CutPermit,
        validate_only: bool,
        probes: Mapping[Target, VersionProbe] | None,
    ) -> Outcome | list[Target]:
        """Commit a change, or return the targets to probe before that. `probes` are the results so far; None: probe none."""
        if draft.request_id and not validate_only:
            replayed = await self._replayed(draft)
            if replayed is not None:
                return replayed
        # The time is taken here, because the call may have waited for other writes.
        draft = replace(draft, time=self._clock())
        for attempts_left in reversed(range(ATTEMPTS)):
            before = await self._compiled_head(self.store.head.value)
            after, changes = await asyncio.to_thread(self._propose, before, change, draft)
            if not changes:
                return await self._unchanged(before, draft, validate_only)
            targets = self._replaced_versions(before, after, changes) if probes is not None else []
            # A dry run must not connect to addresses that are not in desired state: anybody could scan a network with it.
            unprobed = [target for target in targets if target not in (probes or {})]
            if allowed := [t for t in unprobed if not validate_only or is_known(t, before.state)]:
                return allowed
            losses = await self._losses(before, after, _silent(probes, targets) if probes else NOTHING_SILENT)
            if not validate_only:
                check_cut(losses, permit)
            # Computed while the disk writes. Later it would compete with the push of the revision to the Envoys.
            missing = missing_defaults(after.state, changes.objects.values())
            warnings = (*_unprobed(unprobed), *missing, *before.warnings)
            impact = asyncio.ensure_future(self._impact(before, after, losses, warnings))
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
        """Return the impact of the change from one head to another on the nodes that are connected now."""
        old, new = [await asyncio.to_thread(self._compile, head) for head in (before, after)]
        return await self._impact(old, new, await self._losses(old, new), (*old.warnings, *new.warnings))

    async def probe(self, outcome: Outcome, *, validate_only: bool) -> list[VersionProbe]:
        """Probe the versions whose shares rise from 0 by a write. Return after a second at most.

        With `validate_only`, only endpoints that are in desired state are probed: the change was not made.
        """
        revision = outcome.revision
        if revision is None or not outcome.changed:
            return []
        restored = revision.draft.action in (Action.REVERT, Action.REVERT_REVISION)
        return await self._prober.probe(
            rising(revision.changes, outcome.head.state, restored=restored, made=not validate_only)
        )

    async def _compiled_head(self, head: Head) -> CompiledRevision:
        """Return the head, compiled for every audience."""
        compiled = self._compiled
        if compiled is None or compiled.revision != head.number:
            compiled = await asyncio.to_thread(self._compile, head, compiled)
            self._compiled = None if compiled.warnings else compiled
        return compiled

    def _compile(self, head: Head, before: CompiledRevision | None = None) -> CompiledRevision:
        """Compile a head for every audience, without its patches if one of them fails.

        That a patch of a revision fails later has a reason outside of it, like a plug-in that is gone. The change that repairs
        it is compared with the revision without patches. Errors: those of the compiler, except those about patches.
        """
        try:
            revision = before.next(head) if before else CompiledRevision(head, self._compiler)
            _snapshots(revision)
        except Error as error:
            if not is_about_patches(error):
                raise
            revision = CompiledRevision(head, UnpatchedCompiler(), warnings=(_without_patches(head, error),))
            _snapshots(revision)
        return revision

    def _propose(self, before: CompiledRevision, change: Change, draft: Draft) -> tuple[CompiledRevision, Changes]:
        """Apply a change, and check the result. Return the revision after it, and the changes without equal objects."""
        head = before.head
        objects = with_hashes(with_scopes(head.state, change(head).objects), self._functions.installed)
        changes = Changes({name: objects[name] for name in sorted(objects) if objects[name] != head.state.get(name)})
        if not changes:
            return before, changes
        proposed = head.after(changes, draft)
        consistency.check(head.state, proposed.state, changes.objects)
        call_functions(proposed.state, changes.objects, proposed.meta, self._functions)
        after = CompiledRevision(proposed, self._compiler) if before.warnings else before.next(proposed)
        self._check(_snapshots(before), _snapshots(after))
        return after, changes

    def _check(self, before: Mapping[Audience, Snapshot], after: Mapping[Audience, Snapshot]) -> None:
        """Check each new or different resource once. Errors: about the object that the resource was compiled from."""
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
        try:
            await self.store.commit(after.head, changes, draft, on_commit=lambda: _log_commit(after.revision, changes, draft))
        except Error as error:
            self.failure = error if error.reason.startswith("STORE_") else None
            raise
        self.failure = None
        self._compiled = after

    async def _shielded(self, commit: Coroutine[Any, Any, None]) -> None:
        """Run a commit to its end, even if the caller is cancelled in the meantime."""
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
        """Return the outcome of the earlier request with the same id; None for a new request."""
        earlier = await self.store.recall(draft.request_id)
        if earlier is None:
            return None
        if earlier.digest != draft.request_digest:
            message = f"{draft.request_id} was used for another request already: send a new UUID4"
            raise invalid("request_id", message, "REQUEST_ID_REUSED")
        head = await self.store.at(earlier.revision)
        revision = await self.store.revision(earlier.revision) if earlier.revision else None
        if revision is None or revision.draft.request_id != draft.request_id:
            return Outcome(head, revision, False, NO_IMPACT, {})
        impact = await self.impact(await self.store.at(earlier.revision - 1), head)
        return Outcome(head, revision, True, impact, {})

    def _replaced_versions(self, before: CompiledRevision, after: CompiledRevision, changes: Changes) -> list[Target]:
        """Return the versions with traffic that are reached otherwise; none if they are not to be probed."""
        versions = replaced_versions(before.state, changes)
        if not versions or not self._prober.enabled or not self._nodes.transitions(before.head, before.state):
            return []
        return replaced(versions, before.state, after.state)

    async def _losses(
        self, before: CompiledRevision, after: CompiledRevision, silent: Mapping[VersionName, str] = NOTHING_SILENT
    ) -> Losses:
        """Return what the connected nodes lose. `silent` are versions that don't answer, with the reason."""
        transitions = self._nodes.transitions(before.head, after.state)
        if not transitions:
            return NO_LOSSES
        lost = await asyncio.to_thread(losses_of, before, after, transitions, self._diffs, silent)
        if not lost:
            return NO_LOSSES
        ids: dict[Loss, list[str]] = {}
        for transition, nodes in self._nodes.nodes_of(lost, before.head, after.state).items():
            for loss in lost[transition]:
                ids.setdefault(loss, []).extend(nodes)
        never_opened = await self._never_opened()
        for loss in [loss for loss in ids if loss.kind is LossKind.LISTENER]:
            ids[loss] = [node for node in ids[loss] if loss.address not in never_opened.get(node, ())]
        return in_order({loss: nodes for loss, nodes in ids.items() if nodes})

    async def _never_opened(self) -> Mapping[str, set[str]]:
        """Return the addresses that nodes never opened, by the node's id.

        The node refuses the revision in which a gateway got the address.
        """
        never_opened: dict[str, set[str]] = {}
        opened: dict[int, set[str]] = {}
        for node, refusals in self._nodes.refused_listeners().items():
            for number, addresses in refusals:
                if number not in opened:
                    opened[number] = opened_addresses((await self.store.revision(number)).changes)
                never_opened.setdefault(node, set()).update(addresses & opened[number])
        return never_opened

    async def _impact(
        self, before: CompiledRevision, after: CompiledRevision, losses: Losses, warnings: tuple[str, ...] = ()
    ) -> Impact:
        nodes_before = self._nodes.by_audience(before.state)
        # The audience of a node depends only on the gateways.
        same_gateways = before.state.gateways == after.state.gateways
        nodes_after = nodes_before if same_gateways else self._nodes.by_audience(after.state)
        transitions = () if same_gateways else self._nodes.transitions(before.head, after.state)
        moves = [(old, new) for old, new in transitions if isinstance(old, Audience) and old != new]
        variants = self._nodes.variants()
        warnings = (*warnings, *(o.text for o in self._nodes.outdated(before.head, after.state)))
        impact = await asyncio.to_thread(
            impact_of, before, after, nodes_before, nodes_after, self._diffs, variants, losses, moves
        )
        return replace(impact, warnings=warnings) if warnings else impact


def _silent(probes: Mapping[Target, VersionProbe], targets: Sequence[Target]) -> Mapping[VersionName, str]:
    """Return the probed versions of which no endpoint answers, with the reason."""
    dead = [probes[target] for target in targets if target in probes and probes[target].dead]
    return {(probe.model, probe.version): failures_in_words(probe) for probe in dead}


def _without_patches(head: Head, error: Error) -> str:
    """Return a warning that a revision was compiled without its patches."""
    return (
        f"a patch of revision {head.number} fails here ({error.message}), so what its patches did is not known, and the "
        "comparison with it leaves them out"
    )


def _unprobed(targets: Sequence[Target]) -> tuple[str, ...]:
    """Return a warning if it is not known whether the new endpoints of versions with traffic answer."""
    if not targets:
        return ()
    versions = abbreviated([f"{target.model}/{target.version.name}" for target in targets])
    return (
        f"all endpoints of {versions} are replaced: a dry run does not probe the new ones; the change is refused if none "
        "of them answers",
    )


def _log_commit(revision: int, changes: Changes, draft: Draft) -> None:
    log.info(
        "revision committed",
        revision=revision,
        action=draft.action.value,
        author=draft.author,
        caller=draft.caller,
        **({"note": draft.note} if draft.note else {}),
        reason=draft.reason,
        objects=len(changes.objects),
        names=list(changes.objects)[:8],
    )


def _retrieve_error(task: asyncio.Future[Any]) -> None:
    """Retrieve a task's error, so that asyncio does not report it if nobody awaits the task."""
    if not task.cancelled():
        task.exception()


def _outcome(before: CompiledRevision, after: CompiledRevision, changes: Changes, draft: Draft, impact: Impact) -> Outcome:
    pairs = {name: (before.state.get(name), obj) for name, obj in changes.objects.items()}
    return Outcome(after.head, Revision(after.revision, draft, pairs, after.head.history), True, impact, _snapshots(after))


def _snapshots(compiled: CompiledRevision) -> dict[Audience, Snapshot]:
    return {audience: compiled.snapshot(audience) for audience in audiences(compiled.state)}
