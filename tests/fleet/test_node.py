"""One node: its refusals, its progress with each revision, and the times when it first held them."""

from controlplane.fleet import HISTORY, Fleet, NodeState, ProgressState
from controlplane.xds.events import Blocked, Held, Recovered, Settled, StreamClosed
from tests.fleet.clients import LISTENER, ROUTES, connect, refusal


def test_a_refusal_applies_until_the_client_recovers() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    fleet.apply(1, Held(1), 101)
    fleet.apply(1, refusal(2), 102)
    fleet.apply(1, refusal(2, ROUTES), 103)
    node = fleet.nodes["edge-1"]
    assert [(r.type_url, r.resources, r.message, r.revision, r.time) for r in node.refusals] == [
        (LISTENER, ("public",), "cannot bind", 2, 102),
        (ROUTES, ("public",), "cannot bind", 2, 103),
    ]
    fleet.apply(1, Recovered(LISTENER), 104)
    assert [r.type_url for r in node.refusals] == [ROUTES]
    assert fleet.counts[NodeState.REFUSING] == 1
    fleet.apply(1, Recovered(ROUTES), 105)
    assert (node.refusals, fleet.counts[NodeState.REFUSING]) == ((), 0)


def test_the_progress_follows_acks_nacks_and_the_end_of_the_stream() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    node = fleet.nodes["edge-1"]
    assert node.progress(1) is ProgressState.BEHIND
    fleet.apply(1, Held(1), 101)
    assert (node.progress(1), node.progress(2)) == (ProgressState.HOLDING, ProgressState.BEHIND)
    fleet.apply(1, refusal(2), 102)
    # The node refused revision 2, so it does not hold it. It has not answered revision 3 yet.
    assert (node.progress(1), node.progress(2), node.progress(3)) == (
        ProgressState.HOLDING,
        ProgressState.REFUSED,
        ProgressState.BEHIND,
    )
    fleet.apply(1, StreamClosed(), 103)
    assert (node.progress(1), node.progress(2)) == (ProgressState.HOLDING, ProgressState.GONE)


def test_a_refusal_also_blocks_newer_revisions_that_need_the_refused_resource() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    fleet.apply(1, Held(1), 101)
    fleet.apply(1, refusal(2), 102)
    node = fleet.nodes["edge-1"]
    assert node.progress(3) is ProgressState.BEHIND
    fleet.apply(1, Blocked(3), 103)
    assert (node.progress(2), node.progress(3), node.progress(4)) == (
        ProgressState.REFUSED,
        ProgressState.REFUSED,
        ProgressState.BEHIND,
    )
    assert [(r.revision, r.blocked_up_to, r.time) for r in node.refusals] == [(2, 3, 102)]
    assert node.last_seen == 102
    fleet.apply(1, Recovered(LISTENER), 105)
    assert node.progress(3) is ProgressState.BEHIND


def test_an_older_refusal_does_not_make_a_newer_revision_refused() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    fleet.apply(1, Held(27), 101)
    fleet.apply(1, refusal(28), 102)
    fleet.apply(1, Settled(30, 28), 103)
    node = fleet.nodes["edge-1"]
    progress = [node.progress(n) for n in (27, 28, 29, 30, 31)]
    assert progress == [
        ProgressState.HOLDING,
        ProgressState.REFUSED,
        ProgressState.HOLDING,
        ProgressState.HOLDING,
        ProgressState.BEHIND,
    ]
    assert (node.held_revision, node.hold_time(30), fleet.holding(28), fleet.holding(30)) == (30, 103, 0, 1)
    # The state of the node is still REFUSING, and a new refusal is recorded.
    assert (fleet.state_of(node), [r.revision for r in node.refusals]) == (NodeState.REFUSING, [28])
    fleet.apply(1, refusal(31), 104)
    assert (node.progress(30), node.progress(31)) == (ProgressState.HOLDING, ProgressState.REFUSED)
    fleet.apply(1, Settled(32, 31), 105)
    assert (node.progress(31), node.progress(32)) == (ProgressState.REFUSED, ProgressState.HOLDING)
    fleet.apply(1, Recovered(LISTENER), 106)
    fleet.apply(1, Held(33), 106)
    assert all(node.progress(n) is ProgressState.HOLDING for n in range(1, 34))
    assert fleet.counts[NodeState.SYNCED] == 1


def test_every_stream_of_a_node_must_hold_a_revision_that_another_holds_except_for_a_refusal() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    connect(fleet, 2)
    fleet.apply(1, refusal(2), 101)
    fleet.apply(1, Settled(3, 2), 102)
    node = fleet.nodes["edge-1"]
    assert node.progress(3) is ProgressState.BEHIND
    fleet.apply(2, Held(3), 103)
    assert (node.progress(2), node.progress(3)) == (ProgressState.REFUSED, ProgressState.HOLDING)
    fleet.apply(1, StreamClosed(), 104)
    assert (node.progress(2), node.held_revision) == (ProgressState.HOLDING, 3)


def test_a_repeated_old_refusal_does_not_replace_a_newer_one() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    fleet.apply(1, refusal(2), 101)
    fleet.apply(1, refusal(4), 102)
    fleet.apply(1, refusal(2), 103)
    node = fleet.nodes["edge-1"]
    assert ([r.revision for r in node.refusals], node.progress(4), node.last_seen) == ([4], ProgressState.REFUSED, 103)


def test_a_skipped_revision_is_held_once_a_newer_one_is_held() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    for revision, now in ((2, 101), (5, 102), (6, 103)):
        fleet.apply(1, Held(revision), now)
    node = fleet.nodes["edge-1"]
    assert [node.hold_time(n) for n in (1, 2, 3, 5, 6, 7)] == [101, 101, 102, 102, 103, None]


def test_the_history_of_a_node_is_bounded() -> None:
    fleet = Fleet()
    connect(fleet, 1)
    for revision in range(1, 3 * HISTORY):
        fleet.apply(1, Held(revision), 100 + revision)
    history = fleet.nodes["edge-1"].history
    assert len(history) == HISTORY
    assert history[-1] == (3 * HISTORY - 1, 100 + 3 * HISTORY - 1)
