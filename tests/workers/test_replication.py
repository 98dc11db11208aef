"""A worker's world against the one that it is fed from."""

from __future__ import annotations

import pickle
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controlplane.compiler import Compiler
from controlplane.domain import Endpoint, Gateway, Model, Object, Version
from controlplane.domain.revision import Head
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.errors import Code, Error
from controlplane.published import CompiledRevision
from controlplane.snapshot import Audience, Client, Snapshot
from controlplane.workers.replication import (
    Part,
    ReceivedRevision,
    Served,
    SnapshotReceiver,
    SnapshotSender,
    Update,
    UpdateEncoder,
)
from controlplane.xds.events import Identified

EDGE = Audience(("edge",))
AUDIENCES = [
    EDGE,
    Audience(("inner",)),
    Audience(("edge",), Client.GRPC),
    Audience(("edge",), models=frozenset("b")),
    Audience(),
]


def model(name: str, blue: int = 10_000, port: int = 9001) -> Model:
    versions = (Version("blue", (Endpoint("127.0.0.1", port),)), Version("green", (Endpoint("127.0.0.1", 9002),)))
    split = {"blue": blue, "green": 10_000 - blue} if blue < 10_000 else {"blue": blue}
    return Model(name, versions=versions, gateways=("edge",), split=split)


class Desired:
    """Desired state, and the world of it."""

    def __init__(self, *objects: Object) -> None:
        edge = Gateway("edge", port=10_000)
        state = State().applied(Changes({o.resource_name: o for o in (edge, *objects)}))
        self.head = Head(1, state)
        self.world = CompiledRevision(self.head, Compiler())

    def change(self, **objects: Object | None) -> CompiledRevision:
        """The next world; objects by collection and label, `models_a`."""
        changes = Changes({name.replace("_", "/"): o for name, o in objects.items()})
        self.head = Head(self.head.number + 1, self.head.state.applied(changes))
        self.world = self.world.next(self.head)
        return self.world


class Worker:
    """Both ends of one link, and what is on its way between them."""

    def __init__(self, packer: UpdateEncoder) -> None:
        self.feed = SnapshotSender(packer)
        self.fed = SnapshotReceiver(lambda a: self.up.append(("ask", a)), lambda a: self.up.append(("forget", a)))
        self.up: deque[tuple[str, Audience]] = deque()
        self.down: deque[bytes] = deque()
        self.world: ReceivedRevision | None = None

    def hear(self) -> None:
        """Main takes what the worker has said."""
        while self.up:
            what, audience = self.up.popleft()
            (self.feed.ask if what == "ask" else self.feed.forget)(audience)

    def send(self, world: Served) -> int:
        """Main sends what is lacking; the size of it."""
        update = self.feed.update(world)
        if update is None:
            return 0
        self.down.append(pickle.dumps(update))
        return len(self.down[-1])

    def take(self) -> None:
        """The worker takes what is on its way."""
        while self.down:
            update = pickle.loads(self.down.popleft())
            assert isinstance(update, Update)
            self.world = self.fed.take(update)

    def settle(self, world: Served) -> None:
        while True:
            self.hear()
            self.send(world)
            if not self.down:
                return
            self.take()

    def snapshot(self, world: Served, audience: Audience) -> Snapshot:
        """What it serves an audience, however long that takes to come."""
        self.settle(world)
        assert self.world is not None
        found = self.world.snapshot(audience)
        if found is None:
            self.settle(world)
            found = self.world.snapshot(audience)
        assert found is not None
        return found


def started(*objects: Object) -> tuple[Desired, Worker]:
    desired = Desired(*objects)
    return desired, Worker(UpdateEncoder(failed))


def failed(audience: Audience, error: Exception) -> None:
    raise AssertionError(f"{audience} does not compile") from error


def test_a_worker_serves_what_main_would() -> None:
    desired, worker = started(model("a"), model("b"))
    for audience in AUDIENCES:
        assert worker.snapshot(desired.world, audience) == desired.world.snapshot(audience)
        assert worker.world is not None
        assert worker.world.note(audience) == desired.world.note(audience)
    assert worker.world is not None
    assert worker.world.gateways == desired.world.gateways
    node = Identified("edge-1", "edge", {}, "envoy 1.40.0")
    assert worker.world.audience(node) == desired.world.audience(node)
    assert worker.world.audience(node) is worker.world.audience(node)


def test_a_switch_is_sent_as_what_it_changes_and_leaves_the_rest_as_it_is() -> None:
    desired, worker = started(*(model(f"m{n}") for n in range(100)))
    before, known = worker.snapshot(desired.world, EDGE), worker.world
    sent = worker.send(desired.change(models_m7=model("m7", 0)))
    assert 0 < sent < 2_000
    after = worker.snapshot(desired.world, EDGE)
    assert after == desired.world.snapshot(EDGE)
    assert after.revision == 2
    for type_url, resources in after.resources.items():
        assert (resources is before.resources[type_url]) == (type_url != ROUTES)
    assert sum(r is not before.resources[ROUTES].get(n) for n, r in after.resources[ROUTES].items()) == 1
    assert known is not None
    assert worker.world is not None
    assert worker.world.gateways is known.gateways


def test_a_slow_worker_is_brought_to_the_newest_world_at_once() -> None:
    desired, worker = started(model("a"))
    worker.snapshot(desired.world, EDGE)
    for n in range(50):
        desired.change(models_a=model("a", n))
    assert worker.send(desired.world) < 2_000
    assert worker.send(desired.world) == 0
    assert len(worker.down) == 1
    assert worker.snapshot(desired.world, EDGE) == desired.world.snapshot(EDGE)


def test_workers_that_lack_the_same_are_sent_the_same_bytes() -> None:
    desired, one = started(model("a"))
    packer = UpdateEncoder(failed)
    one, two = Worker(packer), Worker(packer)
    for worker in (one, two):
        worker.snapshot(desired.world, EDGE)
    world = desired.change(models_a=model("a", 0))
    updates = [worker.feed.update(world) for worker in (one, two)]
    assert updates[0] is not None
    assert updates[1] is not None
    assert len(updates[0].parts) == 1
    assert updates[0].parts[0] is updates[1].parts[0]


def test_an_audience_that_comes_is_added_to_the_same_world() -> None:
    desired, worker = started(model("a"))
    worker.snapshot(desired.world, EDGE)
    world = worker.world
    assert world is not None
    assert world.snapshot(AUDIENCES[2]) is None
    worker.settle(desired.world)
    assert worker.world is world
    assert world.snapshot(AUDIENCES[2]) == desired.world.snapshot(AUDIENCES[2])


def test_audiences_share_what_is_the_same_in_them() -> None:
    desired, worker = started(model("a"), model("b"))
    one, other = worker.snapshot(desired.world, EDGE), worker.snapshot(desired.world, AUDIENCES[3])
    assert other.resources[CLUSTER]
    assert all(one.resources[CLUSTER][n] is r for n, r in other.resources[CLUSTER].items())


def test_an_audience_that_nobody_asks_for_is_left_out_and_comes_back_whole() -> None:
    desired, worker = started(model("a"))
    worker.snapshot(desired.world, EDGE)
    for n in range(30):
        worker.settle(desired.change(models_a=model("a", n)))
    parts = _parts(worker, desired.change(models_a=model("a", 77)))
    assert parts == []
    worker.take()
    assert worker.snapshot(desired.world, EDGE) == desired.world.snapshot(EDGE)


def test_what_can_not_be_compiled_ends_in_an_error_and_heals() -> None:
    class Broken(CompiledRevision):
        def snapshot(self, audience: Audience) -> Snapshot:
            raise ValueError("no")

    said: list[Audience] = []
    desired, worker = Desired(model("a")), Worker(UpdateEncoder(lambda audience, error: said.append(audience)))
    for _ in range(2):
        with pytest.raises(Error) as caught:
            worker.snapshot(Broken(desired.head, Compiler()), EDGE)
        assert caught.value.code is Code.INTERNAL
    assert said == [EDGE, EDGE]
    assert worker.snapshot(desired.world, EDGE) == desired.world.snapshot(EDGE)


def test_what_no_audience_has_any_more_is_let_go_of() -> None:
    desired, worker = started()
    for n in range(1_000):
        worker.snapshot(desired.change(**{"models_a": model("a", n), f"models_m{n}": model(f"m{n}")}), EDGE)
        worker.snapshot(desired.change(**{f"models_m{n}": None}), EDGE)
    assert len(worker.fed._resources) < 2_000


def _parts(worker: Worker, world: CompiledRevision) -> list[Part]:
    update = worker.feed.update(world)
    assert update is not None
    worker.down.append(pickle.dumps(update))
    return [pickle.loads(part) for part in update.parts]


class Feeding(RuleBasedStateMachine):
    """Two workers, any interleaving of what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.desired = Desired(model("a"))
        packer = UpdateEncoder(failed)
        self.workers = [Worker(packer), Worker(packer)]
        for worker in self.workers:
            worker.settle(self.desired.world)

    @rule(name=st.sampled_from("abc"), blue=st.integers(0, 10_000), port=st.integers(9001, 9003))
    def model_changes(self, name: str, blue: int, port: int) -> None:
        self.desired.change(**{f"models_{name}": model(name, blue, port)})

    @rule(name=st.sampled_from("abc"))
    def model_goes(self, name: str) -> None:
        if name in self.desired.head.state.models:
            self.desired.change(**{f"models_{name}": None})

    @rule(port=st.integers(10_001, 10_003))
    def gateway_changes(self, port: int) -> None:
        self.desired.change(gateways_inner=Gateway("inner", port=port))

    @rule(w=st.integers(0, 1), audience=st.sampled_from(AUDIENCES))
    def stream_comes(self, w: int, audience: Audience) -> None:
        world = self.workers[w].world
        assert world is not None
        world.snapshot(audience)

    @rule(w=st.integers(0, 1))
    def worker_is_heard(self, w: int) -> None:
        self.workers[w].hear()

    @rule(w=st.integers(0, 1))
    def worker_is_sent(self, w: int) -> None:
        self.workers[w].send(self.desired.world)

    @rule(w=st.integers(0, 1))
    def worker_takes(self, w: int) -> None:
        worker = self.workers[w]
        before = {} if worker.world is None else dict(worker.world._known)
        worker.take()
        assert worker.world is not None
        for audience, known in worker.world._known.items():
            old, new = before[audience].snapshot if audience in before else None, known.snapshot
            if old is not None and new is not None:
                for type_url, version in new.versions.items():
                    same = old.resources[type_url] is new.resources[type_url]
                    assert same == (version == old.versions[type_url])

    @rule(w=st.integers(0, 1), times=st.integers(1, 20))
    def many_changes(self, w: int, times: int) -> None:
        for n in range(times):
            self.model_changes("a", n, 9001)
            self.workers[w].settle(self.desired.world)

    @rule(w=st.integers(0, 1), audience=st.sampled_from(AUDIENCES))
    def worker_is_asked(self, w: int, audience: Audience) -> None:
        found = self.workers[w].snapshot(self.desired.world, audience)
        assert found == self.desired.world.snapshot(audience)
        world = self.workers[w].world
        assert world is not None
        assert world.note(audience) == self.desired.world.note(audience)

    @invariant()
    def versions_are_those_of_the_resources(self) -> None:
        for worker in self.workers:
            for known in worker.world._known.values() if worker.world else ():
                if (s := known.snapshot) is not None:
                    again = Snapshot.of(s.revision, s.audience, (r for rs in s.resources.values() for r in rs.values()))
                    assert again == s


TestFeeding = Feeding.TestCase
TestFeeding.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
