from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.validation import Validator
from controlplane.domain import Endpoint, Gateway, Model, NodeSelector, Protocol, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS, Endpoints
from controlplane.domain.revision import Action, Draft, Head
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import ENDPOINTS, LISTENER, ROUTES
from controlplane.errors import Code, Error, failed_precondition
from controlplane.published import CompiledRevision
from controlplane.snapshot import Audience, Client, Snapshot
from controlplane.store import Store, conflict
from controlplane.writer import NO_IMPACT, TRIES, CachingCompiler, Writer
from tests.store.opening import open_store

EDGE = Gateway("edge", 8080)
BLUE, GREEN = (Version(n, (Endpoint(f"10.0.0.{i}", 80),)) for i, n in enumerate(("blue", "green"), 1))
IRIS = Model("iris", ("edge",), (BLUE, GREEN), {"blue": 10_000})
SWITCHED = replace(IRIS, split={"green": 10_000})


def draft(request_id: str = "", digest: str = "d") -> Draft:
    return Draft("ann", "why", Action.APPLY, request_id=request_id, request_digest=digest)


def to(*objects: Gateway | Model, deleted: tuple[str, ...] = ()) -> Callable[[Head], Changes]:
    """A change that sets and deletes these, whatever there is."""
    return lambda head: Changes({**{o.resource_name: o for o in objects}, **dict.fromkeys(deleted)})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(tmp_path)
    yield store
    await store.close()


def everywhere(state: State) -> Mapping[Audience, int]:
    """Ten nodes that take whatever gateways there are."""
    return {Audience(tuple(sorted(state.gateways))): 10}


@pytest.fixture
def writer(store: Store) -> Writer:
    return Writer(store, CachingCompiler(Compiler()), everywhere)


async def reason(writer: Writer, change: Callable[[Head], Changes], said: Draft | None = None) -> str:
    """Why a write is refused. Nothing was changed by it."""
    head = writer.store.head.value
    with pytest.raises(Error) as caught:
        await writer.write(change, said or draft())
    assert writer.store.head.value is head
    return caught.value.reason


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


async def test_a_switch_costs_one_route(writer: Writer) -> None:
    await writer.write(to(EDGE, IRIS), draft())
    done = await writer.write(to(SWITCHED), draft())
    assert done.impact.types == {ROUTES: (1, 0)}
    sent = done.snapshots[Audience(("edge",))].resources[ROUTES]["iris"]
    assert (done.impact.bytes_per_node, done.impact.nodes) == (len(sent.body), 10)


async def test_what_is_as_it_was_makes_no_revision(writer: Writer) -> None:
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


async def test_what_does_not_fit_together_is_refused(writer: Writer) -> None:
    assert await reason(writer, to(IRIS)) == "UNKNOWN_GATEWAY"
    await writer.write(to(EDGE, IRIS), draft())
    assert await reason(writer, to(Gateway("other", 8080))) == "ADDRESS_TAKEN"

    def refuse(head: Head) -> Changes:
        raise failed_precondition("NO", "field", f"not at {head.number}")

    assert await reason(writer, refuse) == "NO"


async def test_what_envoy_would_refuse_is_refused(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is asked of what is new or different, once each, and what it says is final."""
    asked: list[list[str]] = []

    def check(self: Validator, resources: list[object], snapshot: object) -> None:
        asked.append([f"{r.name}" for r in resources])  # type: ignore[attr-defined]
        if len(asked) > 4:
            raise Error(Code.INVALID_ARGUMENT, "ENVOY_WOULD_REFUSE", "no")

    monkeypatch.setattr(Validator, "check", check)
    await writer.write(to(EDGE, Gateway("other", 81), IRIS), draft())
    assert sorted(n for names in asked for n in names if n == "iris") == ["iris"]
    asked.clear()
    await writer.write(to(SWITCHED), draft())
    assert [n for names in asked for n in names] == ["iris"]
    asked[:] = [[]] * 4
    assert await reason(writer, to(IRIS)) == "ENVOY_WOULD_REFUSE"


async def test_a_change_is_tried_again_on_what_came_first(store: Store) -> None:
    """Another writer of the same store: its revision is looked at before the change is made."""
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


async def test_what_was_compiled_to_be_checked_is_what_is_served(store: Store) -> None:
    made: list[int] = []

    class Counting(Compiler):
        def compile(
            self, state: State, endpoints: Endpoints, audience: Audience, revision: int, previous: Snapshot | None = None
        ) -> Snapshot:
            made.append(revision)
            return super().compile(state, NO_LIVE_ENDPOINTS, audience, revision, previous)

    compiler = CachingCompiler(Counting())
    writer = Writer(store, compiler)
    await writer.write(to(EDGE), draft())
    served = CompiledRevision(store.head.value, compiler)
    at_edge = served.snapshot(Audience(("edge",)))
    for change in (to(IRIS), to(SWITCHED)):
        await writer.write(change, draft())
        made.clear()
        served = served.next(store.head.value)
        assert not made
        assert served.snapshot(Audience(("edge",))) is not at_edge
        assert served.snapshot(Audience(("edge",))).revision == store.head.value.number
    # What is only looked at is not what is made then, though it would be the same revision.
    await writer.write(to(Gateway("b", 81)), draft(), validate_only=True)
    await writer.write(to(Gateway("c", 82)), draft())
    assert compiler.compile(store.head.value.state, NO_LIVE_ENDPOINTS, Audience(("c",)), 4).resources[LISTENER]


async def test_a_change_is_not_tried_for_ever(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    async def commit(proposed: Head, changes: Changes, draft: Draft) -> Head:
        nonlocal tries
        tries += 1
        raise conflict(proposed.number - 1, proposed.number)

    monkeypatch.setattr(writer.store, "commit", commit)
    assert await reason(writer, to(EDGE)) == "CONFLICT"
    assert tries == TRIES


async def test_changes_run_beside_the_event_loop(writer: Writer) -> None:
    where: list[threading.Thread] = []

    def change(head: Head) -> Changes:
        where.append(threading.current_thread())
        return Changes({})

    await writer.write(change, draft())
    assert where != [threading.main_thread()]


@pytest.mark.parametrize("bad", ["x", "00000000-0000-1000-8000-000000000000", "{" + "0" * 8 + "}", "a" * 32])
async def test_request_ids_are_uuids(writer: Writer, bad: str) -> None:
    assert await reason(writer, to(EDGE), draft(bad)) == "INVALID_REQUEST_ID"


async def test_a_revision_is_of_when_it_was_made_and_not_of_when_it_was_called(store: Store) -> None:
    now = 1.0
    writer = Writer(store, CachingCompiler(Compiler()), clock=lambda: now)
    tried, go = threading.Event(), threading.Event()

    def slow(head: Head) -> Changes:
        tried.set()
        assert go.wait(5)
        return to(EDGE)(head)

    first = asyncio.create_task(writer.write(slow, draft()))
    await asyncio.to_thread(tried.wait, 5)
    second = asyncio.create_task(writer.write(to(IRIS), draft()))
    await asyncio.sleep(0)
    now = 7.0
    go.set()
    made = [(await written).revision for written in (first, second)]
    assert [revision.draft.time for revision in made if revision is not None] == [1.0, 7.0]
    assert store.head.value.time == 7.0


async def test_a_replay_gives_the_first_answer(writer: Writer) -> None:
    used = str(uuid.uuid4())
    first = await writer.write(to(EDGE, IRIS), draft(used))
    await writer.write(to(SWITCHED), draft())
    again = await writer.write(to(EDGE, IRIS), draft(used.upper()))
    assert (again.head, again.revision, again.changed, again.impact) == (first.head, first.revision, True, first.impact)
    assert writer.store.head.value.number == 2
    assert await reason(writer, to(EDGE, IRIS), draft(used, "other")) == "REQUEST_ID_REUSED"


async def test_a_replay_of_nothing_is_nothing(writer: Writer) -> None:
    used, on_empty = str(uuid.uuid4()), str(uuid.uuid4())
    await writer.write(to(), draft(on_empty))
    await writer.write(to(EDGE, IRIS), draft())
    first = await writer.write(to(EDGE), draft(used))
    await writer.write(to(SWITCHED), draft())
    again = await writer.write(to(EDGE), draft(used))
    assert (again.changed, again.revision, again.head) == (False, first.revision, first.head)
    empty = await writer.write(to(EDGE), draft(on_empty))
    assert (empty.changed, empty.revision) == (False, None)


async def test_a_store_that_is_away(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    await writer.write(to(EDGE, IRIS), draft())

    async def commit(base: int, changes: Changes, said: Draft) -> Head:
        raise Error(Code.UNAVAILABLE, "STORE_IO", "away")

    with monkeypatch.context() as patched:
        patched.setattr(writer.store, "commit", commit)
        assert await reason(writer, to(SWITCHED)) == "STORE_IO"
    done = await writer.write(to(SWITCHED), draft())
    assert done.impact.types == {ROUTES: (1, 0)}


async def test_impact_counts_names_once_and_nodes_that_get_anything(store: Store) -> None:
    counts: dict[Audience, int] = {Audience(("a",)): 2, Audience(("b",)): 3, Audience(("a", "b")): 4, Audience(): 50}
    writer = Writer(store, CachingCompiler(Compiler()), lambda state: counts)
    a, b = Gateway("a", 81, nodes=NodeSelector(clusters=("x",))), Gateway("b", 82)
    on_a, on_both = replace(IRIS, gateways=("a",)), replace(IRIS, name="rose", gateways=("a", "b"))
    await writer.write(to(a, b, on_a, on_both), draft())
    of_a = await writer.write(to(replace(on_a, split={"green": 10_000})), draft())
    assert (of_a.impact.types, of_a.impact.nodes) == ({ROUTES: (1, 0)}, 6)
    of_both = await writer.write(to(replace(on_both, split={"green": 10_000})), draft())
    assert (of_both.impact.types, of_both.impact.nodes) == ({ROUTES: (1, 0)}, 9)
    gone = await writer.write(to(deleted=("models/iris",)), draft())
    assert (gone.impact.types[ROUTES], gone.impact.types[ENDPOINTS], gone.impact.nodes) == ((0, 1), (0, 2), 6)
    assert gone.impact.bytes_per_node == 0


async def test_nodes_that_come_to_a_gateway_are_counted(writer: Writer) -> None:
    first = await writer.write(to(EDGE), draft())
    assert first.impact.nodes == 10
    second = await writer.write(to(Gateway("other", 81)), draft())
    assert second.impact.nodes == 10


async def test_a_write_that_is_given_up_is_whole_or_not_there(writer: Writer) -> None:
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


async def test_who_takes_a_model_from_grpc_clients_is_warned(store: Store) -> None:
    clients = [0]

    def nodes(state: State) -> Mapping[Audience, int]:
        return {Audience(("edge",)): 3, Audience(("edge",), Client.GRPC): clients[0]}

    writer = Writer(store, CachingCompiler(Compiler()), nodes)
    blue = replace(BLUE, protocol=Protocol.GRPC)
    iris, switched = (replace(IRIS, versions=(blue, GREEN), split={v: 10_000}) for v in ("blue", "green"))
    assert (await writer.write(to(EDGE, iris), draft())).impact.warnings == ()
    assert (await writer.write(to(switched), draft(), validate_only=True)).impact.warnings == ()
    clients[0] = 1
    (said,) = (await writer.write(to(switched), draft(), validate_only=True)).impact.warnings
    assert said == "1 connected gRPC client is no longer given iris (its version green speaks HTTP/1)"
    clients[0] = 2
    (said,) = (await writer.write(to(switched), draft())).impact.warnings
    assert said.startswith("2 connected gRPC clients are no longer given iris")
    # It is not news twice, and neither is a model that was deleted on purpose.
    assert (await writer.write(to(replace(switched, keys=("i",))), draft())).impact.warnings == ()
    assert (await writer.write(to(iris), draft())).impact.warnings == ()
    assert (await writer.write(to(deleted=("models/iris",)), draft())).impact.warnings == ()
