"""Updates for one worker, and the encoded parts that workers share."""

from __future__ import annotations

import pickle

from controlplane.compiler import Compiler
from controlplane.domain import Gateway
from controlplane.published import CompiledRevision
from controlplane.snapshot import Audience, Snapshot
from controlplane.workers.snapshot_sender import SnapshotSender, UpdateEncoder
from tests.workers.rig import EDGE, EDGE_GRPC, Desired, Replica, fail, model


def test_workers_with_the_same_state_get_the_same_bytes() -> None:
    desired, encoder = Desired(model("a")), UpdateEncoder(fail)
    workers = Replica(encoder), Replica(encoder)
    for worker in workers:
        worker.snapshot(desired.published, EDGE)
    published = desired.change(models_a=model("a", 0))
    updates = [worker.sender.update(published) for worker in workers]
    assert updates[0] is not None
    assert updates[1] is not None
    assert len(updates[0].audience_updates) == 1
    assert updates[0].audience_updates[0] is updates[1].audience_updates[0]


def test_the_first_update_has_no_audience_and_gateways_are_sent_only_when_they_change() -> None:
    desired, sender = Desired(model("a")), SnapshotSender(UpdateEncoder(fail))
    first = sender.update(desired.published)
    assert first is not None
    assert (first.revision, first.gateways, first.audience_updates) == (1, desired.published.gateways, ())
    assert sender.update(desired.published) is None
    second = sender.update(desired.change(models_a=model("a", 0)))
    assert second is not None
    assert (second.revision, second.gateways) == (2, None)
    third = sender.update(desired.change(gateways_inner=Gateway("inner", port=10_001)))
    assert third is not None
    assert third.gateways is not None
    assert set(third.gateways) == {"edge", "inner"}


def test_an_audience_is_sent_whole_once_and_not_after_it_is_unsubscribed() -> None:
    desired, sender = Desired(model("a")), SnapshotSender(UpdateEncoder(fail))
    sender.update(desired.published)
    for audience in (EDGE, EDGE, EDGE_GRPC):
        sender.subscribe(audience)
    sender.unsubscribe(EDGE_GRPC)
    update = sender.update(desired.published)
    assert update is not None
    (whole,) = map(pickle.loads, update.audience_updates)
    assert (whole.audience, whole.whole) == (EDGE, True)
    assert sender.update(desired.published) is None
    sender.unsubscribe(EDGE)
    update = sender.update(desired.change(models_a=model("a", 0)))
    assert update is not None
    assert update.audience_updates == ()


class Broken(CompiledRevision):
    """A revision that does not compile."""

    def snapshot(self, audience: Audience) -> Snapshot:
        raise ValueError("no")


def test_a_compile_error_is_reported_once_for_all_workers_and_sent_once_to_each() -> None:
    errors: list[tuple[Audience, str]] = []
    desired, encoder = Desired(model("a")), UpdateEncoder(lambda audience, error: errors.append((audience, str(error))))
    senders = SnapshotSender(encoder), SnapshotSender(encoder)
    broken = Broken(desired.head, Compiler())
    for sender in senders:
        sender.subscribe(EDGE)
        update = sender.update(broken)
        assert update is not None
        (part,) = map(pickle.loads, update.audience_updates)
        assert part.changes is None
        assert sender.update(broken) is None
    assert errors == [(EDGE, "no")]
    # A second broken revision sends nothing about the audience. The next good one sends it whole.
    update = senders[0].update(Broken(desired.head, Compiler()))
    assert update is not None
    assert update.audience_updates == ()
    update = senders[0].update(desired.published)
    assert update is not None
    (part,) = map(pickle.loads, update.audience_updates)
    assert part.whole
    assert part.changes
