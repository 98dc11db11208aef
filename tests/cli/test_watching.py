"""`--watch` follows a server through its restarts, and says so."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.cli import output
from controlplane.cli.exits import Exit
from controlplane.cli.watching import follow, print_each
from controlplane.envoy_types import CLUSTER
from controlplane.errors import Code, Error, invalid
from tests.cli.conftest import Run, Server, until_state
from tests.cli.terminal import terminal

LOST = Error(Code.UNAVAILABLE, "CONNECTION_REFUSED", "nothing listens at a:1\nadvice")


def client(retry_for: float = 0.0) -> Any:
    return SimpleNamespace(address="a:1", retry_for=retry_for)


def script(*calls: list[int | Error]) -> Any:
    """Return a function of which each call yields the next list of answers; an Error is raised."""
    remaining = iter(calls)

    def answers() -> Iterator[int]:
        for answer in next(remaining):
            if isinstance(answer, Error):
                raise answer
            yield answer

    return answers


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "wait_for_reader", lambda seconds: None)


def test_a_lost_server_is_shown_once_and_found_again() -> None:
    ends = invalid("x", "end")
    updates = follow(client(), script([1, LOST], [LOST], [2, 3], [4, ends]))
    shown: list[tuple[int, str, bool]] = []
    with pytest.raises(Error, match="end"):
        shown.extend((update.value, update.note.partition(" at ")[0], update.lost) for update in updates)
    assert shown == [
        (1, "", False),
        (1, "Connection lost", True),
        (2, "Reconnected to a:1", False),
        (3, "Reconnected to a:1", False),
        (3, "Connection lost", True),
        (4, "Reconnected to a:1", False),
    ]


def test_the_first_answer_must_come_in_time() -> None:
    with pytest.raises(Error, match="nothing listens"):
        list(follow(client(), script([LOST])))
    patient = client(60.0)
    updates = follow(patient, script([LOST], [1], [LOST]))
    assert next(updates).value == 1
    assert patient.retry_for == 0


def test_programs_get_each_answer_once_and_notes_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    printed: list[int] = []
    with pytest.raises(Error, match="end"):
        print_each(follow(client(), script([1, LOST], [2, invalid("x", "end")])), printed.append)
    assert printed == [1, 2]
    err = capsys.readouterr().err
    assert err.count("Connection lost at") == err.count("Reconnected to a:1 at") == 1


@pytest.mark.parametrize("command", ["status", "nodes", "traffic"])
def test_a_watch_survives_a_restart(run: Run, applied: Server, command: str) -> None:
    port = applied.app.api_port
    with terminal(command, "--watch", LINES="12") as screen:
        screen.until({"status": "Revision 1", "nodes": "in sync", "traffic": "iris"}[command])
        applied.stop()
        screen.until("Connection lost at ")
        again = Server(applied.data, port)
        try:
            screen.until("Reconnected to ")
            screen.process.send_signal(signal.SIGINT)
            assert screen.end() == Exit.INTERRUPTED
        finally:
            again.stop()


def test_problems_come_first_on_a_low_terminal(run: Run, applied: Server) -> None:
    models = "".join(
        f"  - {{name: m{i}, gateways: [edge], versions: [{{name: v, endpoints: [{{host: 10.0.0.1, port: 80}}]}}]}}\n"
        for i in range(60)
    )
    node = applied.connect("edge-1")
    node.refuse = lambda type_url, names: "cannot bind: address in use" if type_url == CLUSTER else ""
    assert run("apply", "-f", "-", stdin=f"models:\n{models}").code == 0
    until_state(run, "edge-1", "NODE_STATE_REFUSING")
    with terminal("status", "--watch", LINES="10") as screen:
        screen.until("NODES_REFUSE")
        screen.until("lines more; a taller terminal shows them")
        assert "m59" not in screen.plain
