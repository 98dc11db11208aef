"""The snapshots that a worker has, and the audiences that it subscribes to."""

from __future__ import annotations

import pytest

from controlplane.compiler import Compiler
from controlplane.errors import Code, Error
from controlplane.published import IDLE_REVISIONS
from controlplane.snapshot import Audience
from controlplane.workers.snapshot_sender import UpdateEncoder
from tests.workers.rig import EDGE, EDGE_GRPC, Desired, Replica, model, started
from tests.workers.test_snapshot_sender import Broken


def test_an_audience_is_subscribed_to_once() -> None:
    desired, worker = started(model("a"))
    worker.settle(desired.published)
    for _ in range(3):
        assert worker.revision.snapshot(EDGE) is None
    assert list(worker.subscriptions) == [(True, EDGE)]
    assert worker.revision.note(EDGE) == ""


def test_an_audience_that_no_stream_asks_for_is_dropped() -> None:
    desired, worker = started(model("a"))
    for audience in (EDGE, EDGE_GRPC):
        worker.snapshot(desired.published, audience)
    for n in range(IDLE_REVISIONS + 1):
        worker.send(desired.change(models_a=model("a", n)))
        worker.apply()
        worker.revision.snapshot(EDGE_GRPC)
    assert list(worker.subscriptions) == [(False, EDGE)]
    # An update that was sent before the sender got the message does not add the audience again.
    worker.send(desired.change(models_a=model("a", 9_999)))
    worker.apply()
    assert worker.revision.snapshot(EDGE) is None
    assert worker.revision.snapshot(EDGE_GRPC) == desired.published.snapshot(EDGE_GRPC)


def test_an_audience_that_does_not_compile_is_an_error_until_it_does() -> None:
    errors: list[Audience] = []
    desired, worker = Desired(model("a")), Replica(UpdateEncoder(lambda audience, error: errors.append(audience)))
    for _ in range(2):
        with pytest.raises(Error) as caught:
            worker.snapshot(Broken(desired.head, Compiler()), EDGE)
        assert (caught.value.code, caught.value.reason) == (Code.INTERNAL, "NOT_COMPILED")
    assert errors == [EDGE, EDGE]
    assert worker.snapshot(desired.published, EDGE) == desired.published.snapshot(EDGE)


def test_resources_that_no_audience_has_are_freed() -> None:
    desired, worker = started()
    for n in range(1_000):
        worker.snapshot(desired.change(**{"models_a": model("a", n), f"models_m{n}": model(f"m{n}")}), EDGE)
        worker.snapshot(desired.change(**{f"models_m{n}": None}), EDGE)
    assert len(worker.receiver._pool) < 2_000
