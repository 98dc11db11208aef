"""`turnout switch` and `split`, on a real control plane with xDS clients."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import MINIMAL, Run, Server, split_of
from tests.probe.servers import closed_port

TWO = MINIMAL + MINIMAL.partition("models:\n")[2].replace("iris", "wine")


def test_switch_ends_with_a_receipt(run: Run, applied: Server) -> None:
    for node in ("edge-1", "edge-2"):
        applied.connect(node)
    applied.connect("edge-3", "sotw")
    result = run("switch", "iris", "--to", "green", "--reason", "better")
    assert (result.code, result.err) == (0, "")
    assert "Revision 2 by ada@tests: better" in result.out
    assert "split: blue 10000 -> green 10000" in result.out
    assert "Sent to 3 nodes: 1 RouteConfiguration, 0 Listeners, " in result.out
    assert "Held by 3 of 3 nodes; commit to last ACK " in result.out
    for node in ("edge-1", "edge-2", "edge-3"):
        assert f"nodes/{node}  " in result.out
    assert split_of(run) == {"green": 10000}


def test_a_switch_to_a_version_that_does_not_answer_has_a_warning(run: Run, server: Server, tmp_path: Path) -> None:
    server = Server(tmp_path / "probing", probe=True)
    try:
        assert run("--api", server.api, "apply", "-f", "-", stdin=MINIMAL.replace("8002", str(closed_port()))).code == 0
        warning = re.compile(r"Warning: as seen from the control plane, iris/green: 0 of 1 endpoint answers: .*refused")
        for more in (["--dry-run"], ["--no-wait"]):
            assert warning.search(run("--api", server.api, "switch", "iris", "--to", "green", *more).out)
        assert "Warning" not in run("--api", server.api, "undo", "iris", "--no-wait", "--no-probe").out
        result = run("--api", server.api, "switch", "iris", "--to", "green", "--no-wait", "-o", "json")
        assert result.json["impact"]["probes"][0]["answering"] == 0
    finally:
        server.stop()


def test_switch_as_json(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    result = run("switch", "iris=green", "-o", "json")
    assert result.json["changed"] is True
    assert result.json["revision"]["action"] == "ACTION_SWITCH"
    assert result.json["models"][0]["split"] == {"green": 10000}
    assert result.json["progress"]["holding"] == 1
    again = run("switch", "models/iris", "--to", "green", "-o", "json")
    assert (again.code, again.json["changed"]) == (0, False)


def test_several_models_in_one_revision(run: Run, server: Server) -> None:
    assert run("apply", "-f", "-", stdin=TWO).code == 0
    assert run("switch", "iris", "wine=green", "--to", "green", "-o", "name").out == "revisions/2\n"
    assert split_of(run, "iris") == split_of(run, "wine") == {"green": 10000}


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["switch", "wine", "--to", "green"], 4, "models/wine does not exist"),
        (["switch", "iris", "--to", "red"], 3, "Error: models/iris: there is no version 'red'"),
        (["switch", "iris", "--to", "green", "--etag", "99"], 3, "etag of an earlier version"),
        (["switch", "iris", "--to", "green", "--etag", "ffffffff-1"], 5, "Look at `turnout history`"),
        (
            ["split", "iris", "blue=50%", "green=40%"],
            3,
            "Error: models/iris: the shares sum to 9,000 basis points (90%) and must sum to 10,000 (100%)",
        ),
    ],
)
def test_an_invalid_move_is_an_error(run: Run, applied: Server, args: list[str], code: int, expected: str) -> None:
    result = run(*args)
    assert (result.code, result.out) == (code, "")
    assert expected in result.err
    assert run("history", "-o", "json").json["revisions"][0]["number"] == "1"


def test_dry_run_moves_nothing(run: Run, applied: Server) -> None:
    for args in (["switch", "iris", "--to", "green"], ["split", "iris", "blue=1", "green=9999"]):
        result = run(*args, "--dry-run")
        assert result.code == 1
        assert result.out.startswith("Dry run: nothing was changed.\nIt would be revision 2 by ada@tests\n")
        assert "iris" in result.out
        assert "Would be sent to 0 nodes: " in result.out
    assert split_of(run) == {"blue": 10000}


def test_split(run: Run, applied: Server) -> None:
    assert run("split", "iris", "blue=99.5%", "green=0.5%").code == 0
    assert split_of(run) == {"blue": 9950, "green": 50}
    assert "blue 99.5%, green 0.5%" in run("get", "models").out


def test_no_wait_ends_without_a_receipt(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    assert "Held by" not in run("switch", "iris", "--to", "green", "--no-wait").out


def test_to_is_never_ignored(run: Run, applied: Server) -> None:
    result = run("switch", "iris=green", "--to", "blue")
    assert result.code == 2
    assert "would be ignored, because each model names its version" in result.err
    assert split_of(run) == {"blue": 10000}
