"""A worker's snapshots equal those of the main process, in every interleaving of messages."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controlplane.domain import Gateway
from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.snapshot import Audience, Snapshot
from controlplane.workers.replication import AudienceUpdate, TypeChange
from controlplane.workers.snapshot_sender import UpdateEncoder
from controlplane.xds.events import Identified
from tests.workers.rig import AUDIENCES, EDGE, EDGE_GRPC, EDGE_MODEL_B, Desired, Replica, fail, model, started


def test_a_worker_serves_what_the_main_process_would() -> None:
    desired, worker = started(model("a"), model("b"))
    for audience in AUDIENCES:
        assert worker.snapshot(desired.published, audience) == desired.published.snapshot(audience)
        assert worker.revision.note(audience) == desired.published.note(audience)
    assert worker.revision.gateways == desired.published.gateways
    node = Identified("edge-1", "edge", {}, "envoy 1.40.0")
    assert worker.revision.audience(node) == desired.published.audience(node)
    assert worker.revision.audience(node) is worker.revision.audience(node)


def test_a_switch_sends_only_the_changed_route_and_keeps_all_other_objects() -> None:
    desired, worker = started(*(model(f"m{n}") for n in range(100)))
    before, revision_before = worker.snapshot(desired.published, EDGE), worker.revision
    size = worker.send(desired.change(models_m7=model("m7", 0)))
    assert 0 < size < 2_000
    after = worker.snapshot(desired.published, EDGE)
    assert after == desired.published.snapshot(EDGE)
    assert after.revision == 2
    for type_url, resources in after.resources.items():
        assert (resources is before.resources[type_url]) == (type_url != ROUTES)
    assert sum(r is not before.resources[ROUTES].get(n) for n, r in after.resources[ROUTES].items()) == 1
    assert worker.revision.gateways is revision_before.gateways


def test_a_slow_worker_gets_one_update_to_the_newest_revision() -> None:
    desired, worker = started(model("a"))
    worker.snapshot(desired.published, EDGE)
    for n in range(50):
        desired.change(models_a=model("a", n))
    assert worker.send(desired.published) < 2_000
    assert worker.send(desired.published) == 0
    assert len(worker.updates) == 1
    assert worker.snapshot(desired.published, EDGE) == desired.published.snapshot(EDGE)


def test_an_audience_that_arrives_later_is_added_to_the_same_revision() -> None:
    desired, worker = started(model("a"))
    worker.snapshot(desired.published, EDGE)
    revision = worker.revision
    assert revision.snapshot(EDGE_GRPC) is None
    worker.settle(desired.published)
    assert worker.revision is revision
    assert revision.snapshot(EDGE_GRPC) == desired.published.snapshot(EDGE_GRPC)


def test_audiences_share_equal_resources() -> None:
    desired, worker = started(model("a"), model("b"))
    one, other = worker.snapshot(desired.published, EDGE), worker.snapshot(desired.published, EDGE_MODEL_B)
    assert other.resources[CLUSTER]
    assert all(one.resources[CLUSTER][n] is r for n, r in other.resources[CLUSTER].items())


def test_an_idle_audience_is_left_out_of_updates_and_returns_whole() -> None:
    desired, worker = started(model("a"))
    worker.snapshot(desired.published, EDGE)
    for n in range(30):
        worker.settle(desired.change(models_a=model("a", n)))
    assert worker.send_decoded(desired.change(models_a=model("a", 77))) == []
    worker.apply()
    assert worker.snapshot(desired.published, EDGE) == desired.published.snapshot(EDGE)


def test_the_parts_of_an_update_say_what_changed() -> None:
    desired, worker = started(model("a"), model("b"))
    worker.snapshot(desired.published, EDGE)
    (update,) = worker.send_decoded(desired.change(models_a=None))
    assert isinstance(update, AudienceUpdate)
    assert (update.audience, update.whole) == (EDGE, False)
    assert update.changes is not None
    routes = update.changes[ROUTES]
    assert isinstance(routes, TypeChange)
    # The gateway lists its models in a RouteConfiguration of its own.
    assert ([r.name for r in routes.changed], routes.removed) == (["gateways/edge"], ("a",))
    assert routes.version == desired.published.snapshot(EDGE).versions[ROUTES]


class Replication(RuleBasedStateMachine):
    """Two workers, and any interleaving of changes and messages."""

    def __init__(self) -> None:
        super().__init__()
        self.desired = Desired(model("a"))
        encoder = UpdateEncoder(fail)
        self.workers = [Replica(encoder), Replica(encoder)]
        for worker in self.workers:
            worker.settle(self.desired.published)

    @rule(name=st.sampled_from("abc"), blue=st.integers(0, 10_000), port=st.integers(9001, 9003))
    def change_model(self, name: str, blue: int, port: int) -> None:
        self.desired.change(**{f"models_{name}": model(name, blue, port)})

    @rule(name=st.sampled_from("abc"))
    def delete_model(self, name: str) -> None:
        if name in self.desired.head.state.models:
            self.desired.change(**{f"models_{name}": None})

    @rule(port=st.integers(10_001, 10_003))
    def change_gateway(self, port: int) -> None:
        self.desired.change(gateways_inner=Gateway("inner", port=port))

    @rule(w=st.integers(0, 1), audience=st.sampled_from(AUDIENCES))
    def open_stream(self, w: int, audience: Audience) -> None:
        self.workers[w].revision.snapshot(audience)

    @rule(w=st.integers(0, 1))
    def deliver_subscriptions(self, w: int) -> None:
        self.workers[w].deliver_subscriptions()

    @rule(w=st.integers(0, 1))
    def send_update(self, w: int) -> None:
        self.workers[w].send(self.desired.published)

    @rule(w=st.integers(0, 1))
    def apply_updates(self, w: int) -> None:
        worker = self.workers[w]
        before = dict(worker.revision._snapshots)
        worker.apply()
        for audience, received in worker.revision._snapshots.items():
            old, new = before[audience].snapshot if audience in before else None, received.snapshot
            if old is not None and new is not None:
                for type_url, version in new.versions.items():
                    same = old.resources[type_url] is new.resources[type_url]
                    assert same == (version == old.versions[type_url])

    @rule(w=st.integers(0, 1), times=st.integers(1, 20))
    def change_often(self, w: int, times: int) -> None:
        for n in range(times):
            self.change_model("a", n, 9001)
            self.workers[w].settle(self.desired.published)

    @rule(w=st.integers(0, 1), audience=st.sampled_from(AUDIENCES))
    def compare_snapshot(self, w: int, audience: Audience) -> None:
        snapshot = self.workers[w].snapshot(self.desired.published, audience)
        assert snapshot == self.desired.published.snapshot(audience)
        assert self.workers[w].revision.note(audience) == self.desired.published.note(audience)

    @invariant()
    def versions_are_those_of_the_resources(self) -> None:
        for worker in self.workers:
            for received in worker.revision._snapshots.values():
                if (s := received.snapshot) is not None:
                    again = Snapshot.of(s.revision, s.audience, (r for rs in s.resources.values() for r in rs.values()))
                    assert again == s


TestReplication = Replication.TestCase
TestReplication.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
