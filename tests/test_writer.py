"""The writer: changes that are committed, changes that are refused, and repeated calls."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.impact import NO_IMPACT
from controlplane.compiler.validation import Validator
from controlplane.domain import Endpoint, Gateway, Model, Protocol, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS, Endpoints
from controlplane.domain.revision import Action, Draft, Head
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.errors import Code, Error, failed_precondition
from controlplane.published import CompiledRevision
from controlplane.snapshot import Audience, Client, Snapshot
from controlplane.store import Store, conflict
from controlplane.writer import ATTEMPTS, CachingCompiler, Writer
from tests.store.opening import open_store

EDGE = Gateway("edge", 8080)
BLUE, GREEN = (Version(n, (Endpoint(f"10.0.0.{i}", 80),)) for i, n in enumerate(("blue", "green"), 1))
IRIS = Model("iris", ("edge",), (BLUE, GREEN), {"blue": 10_000})
SWITCHED = replace(IRIS, split={"green": 10_000})


def draft(request_id: str = "", digest: str = "d") -> Draft:
    return Draft("ann", "why", Action.APPLY, request_id=request_id, request_digest=digest)


def to(*objects: Gateway | Model, deleted: tuple[str, ...] = ()) -> Callable[[Head], Changes]:
    """Return a change that sets and deletes these objects, whatever the head is."""
    return lambda head: Changes({**{o.resource_name: o for o in objects}, **dict.fromkeys(deleted)})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(tmp_path)
    yield store
    await store.close()


def ten_nodes_everywhere(state: State) -> Mapping[Audience, int]:
    """Count ten nodes, which all gateways select."""
    return {Audience(tuple(sorted(state.gateways))): 10}


@pytest.fixture
def writer(store: Store) -> Writer:
    return Writer(store, CachingCompiler(Compiler()), ten_nodes_everywhere)


async def reason(writer: Writer, change: Callable[[Head], Changes], by: Draft | None = None) -> str:
    """Return the reason of the error that a write raises. Check that the write changed nothing."""
    head = writer.store.head.value
    with pytest.raises(Error) as caught:
        await writer.write(change, by or draft())
    assert writer.store.head.value is head
    return caught.value.reason


async def test_a_moved_gateway_keeps_its_scopes_and_the_same_file_changes_nothing(store: Store, writer: Writer) -> None:
    await writer.write(to(EDGE, IRIS), draft())
    scopes = {
        r.name
        for r in (await writer.write(to(SWITCHED), draft())).snapshots[Audience(("edge",))].resources[SCOPED_ROUTES].values()
    }
    moved = await writer.write(to(Gateway("edge", 8081), deleted=()), draft())
    resources = moved.snapshots[Audience(("edge",))].resources
    assert (list(resources[LISTENER]), set(resources[SCOPED_ROUTES])) == (["0.0.0.0:8081"], scopes)
    # Files and calls of the API know no scope.
    assert not (await writer.write(to(Gateway("edge", 8081)), draft())).changed
    # An earlier state that is restored keeps the scope of now.
    restored = await writer.write(to(EDGE), draft())
    assert store.head.value.state.gateways["edge"] == EDGE
    assert set(restored.snapshots[Audience(("edge",))].resources[SCOPED_ROUTES]) == scopes


async def test_a_change_is_committed(writer: Writer) -> None:
    done = await writer.write(to(EDGE, IRIS), draft())
    assert done.changed
    assert done.revision is not None
    assert done.revision == await writer.store.revision(1)
    assert done.head == writer.store.head.value
    assert done.snapshots[Audience(("edge",))].revision == 1
    assert set(done.snapshots[Audience(("edge",))].resources[ROUTES]) == {"iris"}
    assert done.impact.types[LISTENER] == (1, 0)
    assert done.impact.nodes == 10


async def test_a_switch_changes_one_route(writer: Writer) -> None:
    await writer.write(to(EDGE, IRIS), draft())
    done = await writer.write(to(SWITCHED), draft())
    assert done.impact.types == {ROUTES: (1, 0)}
    sent = done.snapshots[Audience(("edge",))].resources[ROUTES]["iris"]
    assert done.impact.nodes == 10
    assert len(sent.body) + 100 < done.impact.bytes_per_node < len(sent.body) + 300


async def test_a_change_without_a_difference_commits_no_revision(writer: Writer) -> None:
    empty = await writer.write(to(), draft())
    assert (empty.changed, empty.revision, empty.impact) == (False, None, NO_IMPACT)
    await writer.write(to(EDGE, IRIS), draft())
    same = await writer.write(to(Gateway("edge", 8080), replace(IRIS), deleted=("models/rose",)), draft())
    assert same.revision is not None
    assert (same.changed, same.revision.number, same.impact) == (False, 1, NO_IMPACT)
    partly = await writer.write(to(EDGE, SWITCHED), draft())
    assert partly.revision is not None
    assert list(partly.revision.changes) == ["models/iris"]


async def test_validate_only_changes_nothing(writer: Writer) -> None:
    await writer.write(to(EDGE, IRIS), draft())
    head = writer.store.head.value
    used = str(uuid.uuid4())
    tried = await writer.write(to(SWITCHED), draft(used), validate_only=True)
    assert tried.revision is not None
    assert (tried.changed, tried.revision.number, tried.head.number) == (True, 2, 2)
    assert tried.impact.types == {ROUTES: (1, 0)}
    assert writer.store.head.value is head
    assert await writer.store.recall(used) is None
    done = await writer.write(to(SWITCHED), draft(used))
    assert (done.impact, done.snapshots) == (tried.impact, tried.snapshots)


async def test_objects_that_do_not_fit_together_are_refused(writer: Writer) -> None:
    assert await reason(writer, to(IRIS)) == "UNKNOWN_GATEWAY"
    await writer.write(to(EDGE, IRIS), draft())
    assert await reason(writer, to(Gateway("other", 8080))) == "ADDRESS_TAKEN"

    def refuse(head: Head) -> Changes:
        raise failed_precondition("NO", "field", f"not at {head.number}")

    assert await reason(writer, refuse) == "NO"


async def test_resources_that_envoy_would_refuse_are_refused(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each resource that is new or different is checked once. If the check raises an error, the change is refused."""
    checked: list[list[str]] = []

    def check(self: Validator, resources: list[object], snapshot: object) -> None:
        checked.append([f"{r.name}" for r in resources])  # type: ignore[attr-defined]
        if len(checked) > 4:
            raise Error(Code.INVALID_ARGUMENT, "ENVOY_WOULD_REFUSE", "no")

    monkeypatch.setattr(Validator, "check", check)
    await writer.write(to(EDGE, Gateway("other", 81), IRIS), draft())
    assert sorted(n for names in checked for n in names if n == "iris") == ["iris"]
    checked.clear()
    await writer.write(to(SWITCHED), draft())
    assert [n for names in checked for n in names] == ["iris"]
    checked[:] = [[]] * 4
    assert await reason(writer, to(IRIS)) == "ENVOY_WOULD_REFUSE"


async def test_a_change_is_repeated_after_another_revision_was_committed(store: Store) -> None:
    """Another writer of the same store commits first. The change is applied again to that revision."""
    compiler = CachingCompiler(Compiler())
    one, other = Writer(store, compiler), Writer(store, compiler)
    await one.write(to(EDGE), draft())
    seen: list[int] = []
    loop = asyncio.get_running_loop()

    def change(head: Head) -> Changes:
        seen.append(head.number)
        if len(seen) == 1:
            asyncio.run_coroutine_threadsafe(other.write(to(Gateway("b", 81)), draft()), loop).result(5)
        return Changes({f"gateways/g{head.number}": Gateway(f"g{head.number}", 90)})

    done = await one.write(change, draft())
    assert seen == [1, 2]
    assert done.revision is not None
    assert (done.revision.number, list(done.revision.changes)) == (3, ["gateways/g2"])
    assert done.head == store.head.value


async def test_a_snapshot_is_compiled_once_for_the_check_and_for_the_streams(store: Store) -> None:
    compiled: list[int] = []

    class Counting(Compiler):
        def compile(
            self, state: State, endpoints: Endpoints, audience: Audience, revision: int, previous: Snapshot | None = None
        ) -> Snapshot:
            compiled.append(revision)
            return super().compile(state, NO_LIVE_ENDPOINTS, audience, revision, previous)

    compiler = CachingCompiler(Counting())
    writer = Writer(store, compiler)
    await writer.write(to(EDGE), draft())
    served = CompiledRevision(store.head.value, compiler)
    at_edge = served.snapshot(Audience(("edge",)))
    for change in (to(IRIS), to(SWITCHED)):
        await writer.write(change, draft())
        compiled.clear()
        served = served.next(store.head.value)
        assert not compiled
        assert served.snapshot(Audience(("edge",))) is not at_edge
        assert served.snapshot(Audience(("edge",))).revision == store.head.value.number
    # The snapshots of a change that was only validated are not used for the next change, which has the same number.
    await writer.write(to(Gateway("b", 81)), draft(), validate_only=True)
    await writer.write(to(Gateway("c", 82)), draft())
    assert compiler.compile(store.head.value.state, NO_LIVE_ENDPOINTS, Audience(("c",)), 4).resources[LISTENER]


async def test_the_number_of_attempts_is_bounded(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0

    async def commit(proposed: Head, changes: Changes, draft: Draft) -> Head:
        nonlocal attempts
        attempts += 1
        raise conflict(proposed.number - 1, proposed.number)

    monkeypatch.setattr(writer.store, "commit", commit)
    assert await reason(writer, to(EDGE)) == "CONFLICT"
    assert attempts == ATTEMPTS


async def test_changes_run_on_another_thread(writer: Writer) -> None:
    threads: list[threading.Thread] = []

    def change(head: Head) -> Changes:
        threads.append(threading.current_thread())
        return Changes({})

    await writer.write(change, draft())
    assert threads != [threading.main_thread()]


@pytest.mark.parametrize("bad", ["x", "00000000-0000-1000-8000-000000000000", "{" + "0" * 8 + "}", "a" * 32])
async def test_a_request_id_that_is_no_uuid4_is_refused(writer: Writer, bad: str) -> None:
    assert await reason(writer, to(EDGE), draft(bad)) == "INVALID_REQUEST_ID"


async def test_the_time_of_a_revision_does_not_include_the_wait_for_other_writes(store: Store) -> None:
    now = 1.0
    writer = Writer(store, CachingCompiler(Compiler()), clock=lambda: now)
    called, may_return = threading.Event(), threading.Event()

    def slow(head: Head) -> Changes:
        called.set()
        assert may_return.wait(5)
        return to(EDGE)(head)

    first = asyncio.create_task(writer.write(slow, draft()))
    await asyncio.to_thread(called.wait, 5)
    second = asyncio.create_task(writer.write(to(IRIS), draft()))
    await asyncio.sleep(0)
    now = 7.0
    may_return.set()
    revisions = [(await written).revision for written in (first, second)]
    assert [revision.draft.time for revision in revisions if revision is not None] == [1.0, 7.0]
    assert store.head.value.time == 7.0


async def test_a_repeated_call_gets_the_first_answer(writer: Writer) -> None:
    used = str(uuid.uuid4())
    first = await writer.write(to(EDGE, IRIS), draft(used))
    await writer.write(to(SWITCHED), draft())
    again = await writer.write(to(EDGE, IRIS), draft(used.upper()))
    assert (again.head, again.revision, again.changed, again.impact) == (first.head, first.revision, True, first.impact)
    assert writer.store.head.value.number == 2
    assert await reason(writer, to(EDGE, IRIS), draft(used, "other")) == "REQUEST_ID_REUSED"


async def test_a_repeated_call_that_changed_nothing_still_changes_nothing(writer: Writer) -> None:
    used, on_empty = str(uuid.uuid4()), str(uuid.uuid4())
    await writer.write(to(), draft(on_empty))
    await writer.write(to(EDGE, IRIS), draft())
    first = await writer.write(to(EDGE), draft(used))
    await writer.write(to(SWITCHED), draft())
    again = await writer.write(to(EDGE), draft(used))
    assert (again.changed, again.revision, again.head) == (False, first.revision, first.head)
    empty = await writer.write(to(EDGE), draft(on_empty))
    assert (empty.changed, empty.revision) == (False, None)


async def test_a_write_succeeds_after_the_store_was_unavailable(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    await writer.write(to(EDGE, IRIS), draft())

    async def commit(base: int, changes: Changes, draft: Draft) -> Head:
        raise Error(Code.UNAVAILABLE, "STORE_IO", "away")

    with monkeypatch.context() as patched:
        patched.setattr(writer.store, "commit", commit)
        assert await reason(writer, to(SWITCHED)) == "STORE_IO"
    done = await writer.write(to(SWITCHED), draft())
    assert done.impact.types == {ROUTES: (1, 0)}


async def test_nodes_that_another_gateway_selects_are_counted(writer: Writer) -> None:
    first = await writer.write(to(EDGE), draft())
    assert first.impact.nodes == 10
    second = await writer.write(to(Gateway("other", 81)), draft())
    assert second.impact.nodes == 10


async def test_a_write_that_is_cancelled_is_committed_completely_or_not_at_all(writer: Writer) -> None:
    for i in range(12):
        task = asyncio.create_task(writer.write(to(Gateway("edge", 1000 + i)), draft()))
        await asyncio.sleep(i * 0.0005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    done = await writer.write(to(IRIS), draft()) if writer.store.head.value.number else await writer.write(to(EDGE), draft())
    assert done.revision is not None
    assert done.revision == await writer.store.revision(done.revision.number)
    revisions = await writer.store.revisions(10**6, 100)
    assert [r.number for r in revisions] == list(range(done.revision.number, 0, -1))


async def test_the_impact_has_the_warnings_for_nodes_that_are_connected_now(store: Store) -> None:
    clients = [0]

    def nodes(state: State) -> Mapping[Audience, int]:
        return {Audience(("edge",)): 3, Audience(("edge",), Client.GRPC): clients[0]}

    writer = Writer(store, CachingCompiler(Compiler()), nodes)
    blue = replace(BLUE, protocol=Protocol.GRPC)
    iris, switched = (replace(IRIS, versions=(blue, GREEN), split={v: 10_000}) for v in ("blue", "green"))
    assert (await writer.write(to(EDGE, iris), draft())).impact.warnings == ()
    assert (await writer.write(to(switched), draft(), validate_only=True)).impact.warnings == ()
    clients[0] = 1
    (warning,) = (await writer.write(to(switched), draft(), validate_only=True)).impact.warnings
    assert warning == "1 connected gRPC client is no longer given iris (its version green speaks HTTP/1)"
    clients[0] = 2
    (warning,) = (await writer.write(to(switched), draft())).impact.warnings
    assert warning.startswith("2 connected gRPC clients are no longer given iris")
    # There is no warning about a model that was lost before, or that the change deletes.
    assert (await writer.write(to(replace(switched, keys=("i",))), draft())).impact.warnings == ()
    assert (await writer.write(to(iris), draft())).impact.warnings == ()
    assert (await writer.write(to(deleted=("models/iris",)), draft())).impact.warnings == ()
