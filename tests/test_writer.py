"""The writer: changes that are committed, changes that are refused, and repeated calls."""

from __future__ import annotations

import asyncio
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from controlplane.compiler import NO_META, Compiler
from controlplane.compiler.impact import NO_IMPACT
from controlplane.compiler.reach import NOTHING_HELD, Claim
from controlplane.compiler.validation import Validator
from controlplane.domain import BodyRouting, Endpoint, Gateway, HostRouting, Model, Protocol, UpstreamTls, Version
from controlplane.domain.cuts import CutPermit, cut_token
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS, Endpoints
from controlplane.domain.revision import Action, Draft, Head, ObjectMeta
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.errors import Code, Error, failed_precondition
from controlplane.fleet import Node
from controlplane.probe import Answer, EndpointProbe, Prober, Target, VersionProbe
from controlplane.published import CompiledRevision
from controlplane.reconciler.publish import Publisher
from controlplane.snapshot import Audience, Snapshot
from controlplane.store import Store, conflict
from controlplane.writer import ATTEMPTS, CachingCompiler, Writer
from tests.fakes.connected_nodes import CountedNodes, FakeNodes
from tests.probe.servers import answer, server
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
    return Writer(store, CachingCompiler(Compiler()), CountedNodes(ten_nodes_everywhere))


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
    assert set(done.snapshots[Audience(("edge",))].resources[ROUTES]) == {"iris", "gateways/edge"}
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
            self,
            state: State,
            endpoints: Endpoints,
            audience: Audience,
            revision: int,
            previous: Snapshot | None = None,
            meta: Mapping[str, ObjectMeta] = NO_META,
        ) -> Snapshot:
            compiled.append(revision)
            return super().compile(state, NO_LIVE_ENDPOINTS, audience, revision, previous, meta)

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

    async def commit(proposed: Head, changes: Changes, draft: Draft, **more: object) -> Head:
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

    async def commit(base: int, changes: Changes, draft: Draft, **more: object) -> Head:
        raise Error(Code.UNAVAILABLE, "STORE_IO", "away")

    with monkeypatch.context() as patched:
        patched.setattr(writer.store, "commit", commit)
        assert await reason(writer, to(SWITCHED)) == "STORE_IO"
    assert writer.failure is not None
    assert writer.failure.message == "away"
    done = await writer.write(to(SWITCHED), draft())
    assert done.impact.types == {ROUTES: (1, 0)}
    assert writer.failure is None


async def test_a_revision_is_logged_as_committed_before_it_is_logged_as_served(store: Store, writer: Writer) -> None:
    publisher = Publisher(store.head, CachingCompiler(Compiler()), lambda head: None)
    publisher.publish()
    run = asyncio.create_task(publisher.run())
    with capture_logs() as lines:
        for objects in ((EDGE, IRIS), (SWITCHED,)):
            await writer.write(to(*objects), replace(draft(), caller="10.0.0.1:5000"))
            async with asyncio.timeout(5):
                while not (served := publisher.published.value) or served.revision < store.head.value.number:  # noqa: ASYNC110
                    await asyncio.sleep(0)
    run.cancel()
    order = [("revision committed", 1), ("revision served", 1), ("revision committed", 2), ("revision served", 2)]
    assert [(line["event"], line["revision"]) for line in lines] == order
    assert (lines[0]["author"], lines[0]["caller"], lines[0]["reason"]) == ("ann", "10.0.0.1:5000", "why")


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


@pytest.fixture
def guarded(store: Store) -> tuple[Writer, FakeNodes]:
    """A writer with a node that every gateway selects, and a gRPC client."""
    nodes = FakeNodes([Node("edge-1"), Node("py-1", user_agent="grpc-python")])
    return Writer(store, CachingCompiler(Compiler()), nodes, prober=Prober(local=True, time_limit=0.5)), nodes


ALLOWED = CutPermit(True)


async def test_a_change_that_cuts_traffic_is_refused_unless_it_is_allowed(guarded: tuple[Writer, FakeNodes]) -> None:
    writer, nodes = guarded
    await writer.write(to(EDGE, IRIS), draft())
    assert await reason(writer, to(deleted=("models/iris",))) == "CUTS_TRAFFIC"
    tried = await writer.write(to(deleted=("models/iris",)), draft(), validate_only=True)
    texts = [loss.text(ids) for loss, ids in tried.impact.losses.items()]
    assert texts == ["model iris loses its path at 0.0.0.0:8080 on edge-1"]
    # The loss has grown since the dry run.
    token = cut_token(tried.impact.losses)
    nodes.nodes.append(Node("edge-2"))
    with pytest.raises(Error, match="on 2 nodes, not 1"):
        await writer.write(to(deleted=("models/iris",)), draft(), permit=CutPermit(True, token))
    nodes.nodes.pop()
    done = await writer.write(to(deleted=("models/iris",)), draft(), permit=CutPermit(True, token))
    assert (done.changed, done.impact) == (True, tried.impact)
    # The gateway is lost without a model, and with nobody connected nothing is lost.
    nodes.nodes.clear()
    assert not (await writer.write(to(deleted=("gateways/edge",)), draft())).impact.losses


async def test_a_dry_run_names_the_nodes_that_are_too_old(guarded: tuple[Writer, FakeNodes]) -> None:
    writer, nodes = guarded
    nodes.nodes.append(Node("edge-2", user_agent="envoy 1.35.2"))
    tried = await writer.write(to(EDGE), draft(), validate_only=True)
    assert tried.impact.warnings == (
        "nodes/edge-2 runs Envoy 1.35.2, and gateways/edge needs 1.36: older versions are not supported",
    )
    assert (await writer.write(to(EDGE), draft())).impact.warnings == tried.impact.warnings
    assert (await writer.write(to(IRIS), draft(), validate_only=True)).impact.warnings == ()


async def test_a_default_model_that_does_not_exist_has_a_warning_until_it_does(guarded: tuple[Writer, FakeNodes]) -> None:
    writer, _ = guarded
    gateway = replace(EDGE, routing=BodyRouting(default_model="iris"))
    for validate_only in (True, False):
        (warning,) = (await writer.write(to(gateway), draft(), validate_only=validate_only)).impact.warnings
        assert "has the key 'iris', its default_model" in warning
    assert not (await writer.write(to(replace(gateway, expected_nodes=1), IRIS), draft())).impact.warnings


async def test_what_a_grpc_client_can_no_longer_reach_is_a_loss(guarded: tuple[Writer, FakeNodes]) -> None:
    writer, _ = guarded
    blue = replace(BLUE, protocol=Protocol.GRPC)
    iris, switched = (replace(IRIS, versions=(blue, GREEN), split={v: 10_000}) for v in ("blue", "green"))
    await writer.write(to(EDGE, iris), draft())
    assert await reason(writer, to(switched)) == "CUTS_TRAFFIC"
    losses = (await writer.write(to(switched), draft(), permit=ALLOWED)).impact.losses
    texts = [loss.text(ids) for loss, ids in losses.items()]
    assert texts == ["model iris can't be reached any more (its version green speaks HTTP/1) on py-1"]
    assert not (await writer.write(to(iris), draft())).impact.losses


async def test_the_first_change_is_compared_with_what_nodes_say_they_hold(guarded: tuple[Writer, FakeNodes]) -> None:
    writer, nodes = guarded
    labels = [f"m{i}" for i in range(10)]
    held = Claim(frozenset({"0.0.0.0:8080"}), frozenset(f"0.0.0.0:8080/{label}" for label in labels), frozenset(labels))
    nodes.claims.update({"edge-1": held, "py-1": NOTHING_HELD})
    models = [replace(IRIS, name=label) for label in labels]
    assert await reason(writer, to(EDGE, models[0])) == "CUTS_TRAFFIC"
    tried = await writer.write(to(EDGE, models[0]), draft(), validate_only=True)
    (loss,) = tried.impact.losses
    assert loss.models == tuple(labels[1:])
    assert (await writer.write(to(EDGE, *models), draft())).changed


async def test_endpoints_that_replace_all_of_a_live_version_are_probed(guarded: tuple[Writer, FakeNodes]) -> None:
    writer, nodes = guarded
    nodes.nodes.pop()  # gRPC clients would need other versions
    with socket.socket() as listening, socket.socket() as closed:
        for one in (listening, closed):
            one.bind(("127.0.0.1", 0))
        listening.listen()
        there, nowhere = (Endpoint("127.0.0.1", one.getsockname()[1]) for one in (listening, closed))

        def at(*endpoints: Endpoint) -> Model:
            return replace(IRIS, versions=(replace(BLUE, endpoints=endpoints), GREEN))

        await writer.write(to(EDGE, IRIS), draft())
        with pytest.raises(Error) as caught:
            await writer.write(to(at(nowhere)), draft())
        assert caught.value.reason == "CUTS_TRAFFIC"
        assert caught.value.violations[0].description == (
            f"no endpoint of version blue of model iris answers (as seen from the control plane: 127.0.0.1:{nowhere.port} "
            "connection refused) on edge-1"
        )
        # A dry run connects to nothing, and without a probe it is not known whether they answer.
        tried = (await writer.write(to(at(nowhere)), draft(), validate_only=True)).impact
        assert (tried.losses, len(tried.warnings)) == ({}, 1)
        assert tried.warnings[0].startswith("all endpoints of iris/blue are replaced: a dry run does not probe the new ones; ")
        assert not (await writer.write(to(at(nowhere)), draft(), probe=False, validate_only=True)).impact.warnings
        assert not (await writer.write(to(at(nowhere)), draft(), probe=False)).impact.losses
        assert (await writer.write(to(at(there)), draft())).changed
        assert (await writer.write(to(at(nowhere)), draft(), permit=ALLOWED)).impact.losses


async def test_a_live_version_that_is_reached_otherwise_is_probed_in_a_dry_run_too(guarded: tuple[Writer, FakeNodes]) -> None:
    writer, nodes = guarded
    nodes.nodes.pop()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = (Endpoint("127.0.0.1", closed.getsockname()[1]),)
        async with server(answer(b"HTTP/1.1 404 Not Found\r\n\r\n")) as port:
            blue = replace(BLUE, endpoints=(Endpoint("127.0.0.1", port),), protocol=Protocol.HTTP1)
            covered = replace(BLUE, endpoints=dead, fallback=("green",))
            tls = UpstreamTls(insecure_skip_verify=True)
            for before, after, failure in (
                (blue, replace(blue, protocol=Protocol.GRPC), f"127.0.0.1:{port} it does not speak grpc without TLS"),
                (blue, replace(blue, tls=tls), f"127.0.0.1:{port} no answer within"),
                (covered, replace(covered, fallback=()), f"{dead[0].host_port} connection refused"),
                (replace(blue, tls=tls), blue, ""),
                (blue, replace(blue, connect_timeout=1.0), ""),
                (covered, replace(covered, connect_timeout=1.0), ""),
            ):
                both = [replace(IRIS, versions=(version, GREEN)) for version in (before, after)]
                await writer.write(to(EDGE, both[0]), draft(), permit=ALLOWED)
                tried = await writer.write(to(both[1]), draft(), validate_only=True)
                texts = [loss.text(ids) for loss, ids in tried.impact.losses.items()]
                assert (len(texts), tried.impact.warnings) == (bool(failure), ()), failure
                if failure:
                    assert failure in texts[0]
                    assert await reason(writer, to(both[1])) == "CUTS_TRAFFIC"
                    assert not (await writer.write(to(both[1]), draft(), probe=False)).impact.losses
                else:
                    assert (await writer.write(to(both[1]), draft())).changed


class WaitingProber(Prober):
    """Waits in each probe until `go_on` is set, and then finds that nothing answers."""

    def __init__(self) -> None:
        super().__init__()
        self.probed: asyncio.Queue[list[Target]] = asyncio.Queue()
        self.go_on = asyncio.Event()

    async def probe(self, targets: Sequence[Target]) -> list[VersionProbe]:
        self.probed.put_nowait(list(targets))
        await self.go_on.wait()
        refused = (EndpointProbe("10.0.0.9:80", Answer.NO, "connection refused"),)
        return [VersionProbe(t.model, t.version.name, 1, refused) for t in targets]


async def test_other_writes_go_on_while_endpoints_are_probed(store: Store) -> None:
    prober = WaitingProber()
    writer = Writer(store, CachingCompiler(Compiler()), FakeNodes([Node("edge-1")]), prober=prober)
    await writer.write(to(EDGE, IRIS), draft())

    def elsewhere(head: Head) -> Changes:
        model = head.state.models["iris"]
        blue = replace(model.version("blue"), endpoints=(Endpoint("10.0.0.9", 80),))
        return to(replace(model, versions=(blue, *model.versions[1:])))(head)

    moved = asyncio.create_task(writer.write(elsewhere, draft()))
    (first,) = await prober.probed.get()
    # Another change of the version: the endpoints that were probed are not those that would be committed.
    other = replace(BLUE, connect_timeout=1.0)
    assert (await writer.write(to(replace(IRIS, versions=(other, GREEN))), draft())).changed
    prober.go_on.set()
    (second,) = await prober.probed.get()
    assert (first.version.connect_timeout, second.version.connect_timeout) == (BLUE.connect_timeout, 1.0)
    with pytest.raises(Error, match="no endpoint of version blue of model iris answers"):
        await moved
    assert prober.probed.empty()


async def test_a_listener_that_a_node_never_opened_is_not_lost(guarded: tuple[Writer, FakeNodes]) -> None:
    """The node refuses the revision that brought the address. Taking it back must not need a permission."""
    writer, nodes = guarded
    nodes.nodes[:] = [Node("edge-1"), Node("edge-2")]
    await writer.write(to(EDGE, IRIS), draft())
    await writer.write(to(Gateway("taken", 9901)), draft())
    nodes.refused["edge-1"] = [(2, frozenset({"0.0.0.0:9901"}))]
    tried = await writer.write(to(deleted=("gateways/taken",)), draft(), validate_only=True)
    assert [(loss.address, ids) for loss, ids in tried.impact.losses.items()] == [("0.0.0.0:9901", ["edge-2"])]
    nodes.refused["edge-2"] = nodes.refused["edge-1"]
    # A later change of the gateway is refused too. The node has not opened the address before.
    await writer.write(to(Gateway("taken", 9901, routing=HostRouting())), draft())
    # A listener that was there before the refused revision is in place as it was.
    nodes.refused["edge-1"] = [(3, frozenset({"0.0.0.0:9901"}))]
    tried = await writer.write(to(deleted=("gateways/taken",)), draft(), validate_only=True)
    assert list(tried.impact.losses.values()) == [["edge-1"]]
    nodes.refused["edge-1"] = nodes.refused["edge-2"]
    assert (await writer.write(to(deleted=("gateways/taken",)), draft())).changed
