"""Waiting for a revision: nodes that are slow, leave, or come back, and a server that restarts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from controlplane.cli import wait
from controlplane.cli.exits import Exit
from tests.cli.conftest import Run, Server, split_of


def test_waiting_outlives_a_restart(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    port = applied.app.api_port
    watched = threading.Event()

    async def ignored(call: object, response: object) -> None:
        watched.set()

    monkeypatch.setattr(applied.connect("edge-1"), "_take", ignored)

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

    monkeypatch.setattr(leaving, "_take", leave)
    done = run("switch", "iris", "--to", "green", "--timeout", "30")
    assert done.code == 0
    assert "nodes/staying  " in done.out


def test_a_wait_that_ends_is_7(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ignored(call: object, response: object) -> None:
        return

    monkeypatch.setattr(applied.connect("silent"), "_take", ignored)
    done = run("switch", "iris", "--to", "green", "--timeout", "0.5")
    assert done.code == Exit.TIMEOUT
    assert "revision 2 was made, but not every node holds it after 0.5 s" in done.err
    assert "has not ACKed yet" in done.out
    assert split_of(run) == {"green": 10000}
