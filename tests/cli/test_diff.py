"""`turnout diff`, on a real control plane."""

from __future__ import annotations

from pathlib import Path

from controlplane.cli.exits import Exit
from tests.cli.conftest import MINIMAL, NOWHERE, Run, Server


def test_diff(run: Run, applied: Server) -> None:
    run("switch", "iris", "--to", "green")
    for args in ([], ["1"], ["1", "2"], ["revisions/1", "latest"]):
        printed = run("diff", *args)
        assert printed.code == Exit.DIFFERENCE
        assert "split: blue 10000 -> green 10000" in printed.out
        assert "To the Envoys: 0 nodes: 1 RouteConfiguration, 0 Listeners" in printed.out
    assert "+ gateways/edge" in run("diff", "0", "1").out
    same = run("diff", "2", "2")
    assert (same.code, same.out) == (Exit.OK, "No difference.\n")
    assert run("diff", "latest").out == "No difference.\n"
    assert run("diff", "1", "2", "-o", "json").json["changes"][0]["name"] == "models/iris"
    assert run("diff", "1", "2", "-o", "name").out == "models/iris\n"
    assert run("diff", "7", "9").code == Exit.NOT_FOUND
    assert run("diff", "x").code == Exit.USAGE


def test_files_are_compared_with_what_is_live(run: Run, applied: Server, minimal: Path) -> None:
    same = run("diff", "-f", minimal)
    assert (same.code, same.out) == (Exit.OK, "No difference.\n")
    different = run("diff", "-f", "-", stdin=MINIMAL.replace("8002", "8003"))
    assert different.code == Exit.DIFFERENCE
    assert "~ models/iris" in different.out
    assert "Would be sent to 0 nodes: " in different.out
    moved = MINIMAL.replace("{blue: 10000}", "{green: 100%}")
    assert run("diff", "-f", "-", "-o", "name", stdin=moved).out == "models/iris\n"
    assert run("diff", "-f", "-", "-o", "json", stdin=moved).json["changed"] is True
    assert run("history", "-o", "name").out == "revisions/1\n"


def test_errors_exit_with_more_than_1(run: Run, applied: Server, minimal: Path) -> None:
    invalid = run("diff", "-f", "-", stdin=MINIMAL.replace("edge]", "egde]"))
    assert (invalid.code, "<stdin>:" in invalid.err) == (Exit.CONFLICT, True)
    assert run("diff", "-f", "/nowhere").code == Exit.INVALID
    assert run("diff", "-f", minimal, "--api", NOWHERE).code == Exit.UNAVAILABLE
    assert run("diff", "1", "-f", minimal).code == run("diff", "--prune").code == Exit.USAGE
    assert min(code for code in Exit if code not in (Exit.OK, Exit.DIFFERENCE)) > 1


def test_prune_shows_what_would_be_deleted(run: Run, applied: Server, minimal: Path) -> None:
    wine = "models:\n" + MINIMAL.partition("models:\n")[2].replace("iris", "wine")
    assert run("apply", "-f", "-", stdin=wine).code == 0
    assert run("diff", "-f", minimal).code == Exit.OK
    pruned = run("diff", "-f", minimal, "--prune", "-o", "name")
    assert (pruned.code, pruned.out) == (Exit.DIFFERENCE, "models/wine\n")
