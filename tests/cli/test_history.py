"""`turnout history`, on a real control plane."""

from __future__ import annotations

from controlplane.cli.exits import Exit
from tests.cli.conftest import Run, Server


def test_history(run: Run, applied: Server) -> None:
    run("switch", "iris", "--to", "green", "--reason", "better on rare classes")
    run("undo", "iris")
    run("revert", "3")
    run("restore-state", "1", "--yes")
    lines = run("history").out.splitlines()
    assert [line.split()[0] for line in lines] == ["REVISION", "5", "4", "3", "2", "1"]
    assert "ada@tests" in lines[4]
    assert "~ models/iris split: blue 10000 -> green 10000" in lines[4]
    assert "better on rare classes" in lines[4]
    assert ["restore 1" in lines[1], "revert 3" in lines[2], "undo 2" in lines[3]] == [True, True, True]
    assert [r["number"] for r in run("history", "-o", "json").json["revisions"]] == ["5", "4", "3", "2", "1"]
    assert run("history", "-n", "2", "-o", "name").out == "revisions/5\nrevisions/4\n"


def test_history_of_one_object_and_its_limit(run: Run, applied: Server) -> None:
    run("switch", "iris", "--to", "green")
    assert run("history", "gateways/edge", "-o", "name").out == "revisions/1\n"
    assert run("history", "iris", "-o", "name").out == "revisions/2\nrevisions/1\n"
    none = run("history", "nope")
    assert (none.code, none.out, none.err) == (4, "", "Error: models/nope does not exist and never existed\n")
    cut = run("history", "--limit", "1")
    assert len(cut.out.splitlines()) == 2
    assert "there are older revisions" in cut.err


def test_one_revision(run: Run, applied: Server) -> None:
    printed = run("get", "revision", "1").out
    assert "Revision 1: apply by ada@tests" in printed
    assert "first" in printed
    assert "+ models/iris" in printed
    assert run("get", "revisions", "1", "-o", "json").json["revisions"][0]["reason"] == "first"
    assert run("get", "revisions", "9").code == Exit.NOT_FOUND
