"""Waiting for a revision: nodes that are slow, leave, or come back, and a server that restarts."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli import wait
from controlplane.cli.exits import Exit
from controlplane.generated.turnout.v1.revision_pb2 import NodeProgressState, RevisionProgress
from tests.cli.conftest import MINIMAL, Run, Server, ignore_response, split_of


def test_waiting_continues_after_a_restart_of_the_server(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    port = applied.app.api_port
    watched = threading.Event()

    async def ignored(call: object, response: object) -> None:
        watched.set()

    monkeypatch.setattr(applied.connect("edge-1"), "_apply", ignored)

    def restart() -> Server:
        assert watched.wait(20)
        applied.stop()
        restarted = Server(applied.data, port)
        restarted.connect("edge-1")
        return restarted

    with ThreadPoolExecutor(1) as executor:
        starting = executor.submit(restart)
        done = run("--retry-for", "30", "switch", "iris", "--to", "green", "--timeout", "30")
        starting.result(30).stop()
    assert done.code == 0
    assert "Held by 1 of 1 node" in done.out


def test_a_node_that_stays_away_ends_the_wait(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "_RECONNECT_TIME", 0.5)
    leaving = applied.connect("leaving")
    applied.connect("staying")

    async def leave(call: Any, response: object) -> None:
        call.cancel()

    monkeypatch.setattr(leaving, "_apply", leave)
    done = run("switch", "iris", "--to", "green", "--timeout", "30", "--require", "connected")
    assert done.code == 0
    assert "nodes/staying  " in done.out
    done = run("switch", "iris", "--to", "blue", "--timeout", "30")
    assert done.code == Exit.INCOMPLETE
    assert "nodes/leaving  is gone (not connected)" in done.out


def test_a_fleet_that_is_replaced_ends_the_wait_when_the_old_nodes_are_released(run: Run, applied: Server) -> None:
    absent_after = 3.0
    pods = MINIMAL.replace("port: 10000\n", "port: 10000\n    absent_after: 3s\n    expected_nodes: 20\n")
    assert run("apply", "-f", "-", stdin=pods).code == 0
    for i in range(20):
        applied.connect(f"old-{i}")
    assert "Held by 20 of 20 nodes" in run("switch", "iris", "--to", "green").out
    applied.wait(applied.clients.aclose())
    for i in range(20):
        applied.connect(f"new-{i}")
    start = time.monotonic()
    done = run("switch", "iris", "--to", "blue", "--timeout", "60")
    assert time.monotonic() - start < absent_after + 5
    assert (done.code, done.err) == (0, "")
    assert "Held by 20 of 20 nodes" in done.out
    assert (
        "    20 nodes (nodes/old-0, nodes/old-1, nodes/old-10 and 17 more)  were released, because they stayed away"
        in done.out
    )


def test_a_wait_that_times_out_exits_with_7(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applied.connect("silent"), "_apply", ignore_response)
    done = run("switch", "iris", "--to", "green", "--timeout", "0.5")
    assert done.code == Exit.TIMEOUT
    assert "revision 2 was made, but not every node holds it after 0.5 s" in done.err
    assert "has not ACKed yet" in done.out
    assert split_of(run) == {"green": 10000}


def progress(*, total: int, gone: int = 0) -> RevisionProgress:
    return RevisionProgress(total=total, gone=gone)


def known(*, total: int = 3, holding: int = 3, behind: int = 0, refused: int = 0, release_in: float = 0) -> RevisionProgress:
    """Return the progress of a fleet at the time 1,000, of which one node is gone if `release_in` is set."""
    progress = RevisionProgress(total=total, holding=holding, behind=behind, refused=refused, gone=int(release_in > 0))
    if release_in:
        gone = progress.nodes.add(node="nodes/gone", state=NodeProgressState.NODE_PROGRESS_STATE_GONE)
        gone.release_time.seconds = int(1_000 + release_in)
    progress.complete = holding == total
    return progress


def test_a_revision_that_every_known_node_holds_is_done() -> None:
    waiting = wait.Waiting(60.0, None)
    assert waiting.after(known(holding=2, behind=1), 0.0, 1_000.0) is None
    assert waiting.after(known(holding=2, refused=1), 0.0, 1_000.0) is Exit.REFUSED
    assert waiting.after(known(), 0.0, 1_000.0) is Exit.OK


def test_the_command_waits_for_a_node_that_is_released_in_time() -> None:
    waiting = wait.Waiting(60.0, None)
    assert waiting.after(known(holding=2, release_in=50), 0.0, 1_000.0) is None
    assert waiting.until == 60.0


def test_a_node_that_is_not_released_in_time_gets_some_time_to_come_back() -> None:
    waiting = wait.Waiting(60.0, None)
    assert waiting.after(known(holding=2, release_in=100), 1.0, 1_000.0) is None
    assert waiting.after(known(holding=2, release_in=100), 3.0, 1_002.0) is None
    assert waiting.until == 1.0 + wait._RECONNECT_TIME
    # It comes back, and is behind.
    assert waiting.after(known(holding=2, behind=1), 5.0, 1_004.0) is None
    assert waiting.until == 60.0


def test_the_command_waits_for_the_nodes_that_a_gateway_expects() -> None:
    waiting = wait.Waiting(60.0, None)
    progress = known(holding=2, release_in=100)
    progress.expected.add(gateway="gateways/edge", expected=4, counted=3, holding=2)
    assert waiting.after(progress, 1.0, 1_000.0) is None
    assert waiting.until == 60.0


def test_a_node_has_some_time_to_come_back() -> None:
    absence = wait.Absence()
    assert absence.missing(progress(total=3), now=0.0) == 0
    assert absence.missing(progress(total=3, gone=1), now=1.0) is None
    assert absence.missing(progress(total=2), now=2.0) is None  # a new watch does not know the node
    assert absence.missing(progress(total=3), now=3.0) == 0
    assert absence.missing(progress(total=0), now=10.9) is None  # a server that has just started knows no node
    assert absence.missing(progress(total=2), now=11.0) == 1


def test_nodes_that_a_restarted_server_does_not_know_are_missing() -> None:
    absence = wait.Absence(connected=1)
    assert absence.missing(progress(total=0), now=0.0) is None
    assert absence.missing(progress(total=1), now=1.0) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(0, 5)), max_size=12))
def test_the_number_of_missing_nodes_is_known_after_a_while_and_never_negative(reports: list[tuple[int, int, float]]) -> None:
    absence, now, first = wait.Absence(), 0.0, None
    for total, gone, seconds in reports:
        now += seconds
        missing = absence.missing(progress(total=total, gone=min(gone, total)), now)
        if missing is None:
            first = now if first is None else first
            assert now - first < wait._RECONNECT_TIME
        else:
            assert missing >= 0
