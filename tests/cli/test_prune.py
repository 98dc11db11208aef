"""`turnout apply --prune`, on a real control plane."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.cli.exits import Exit
from tests.cli.conftest import MINIMAL, Run, Server
from tests.cli.terminal import terminal

WINE = "models:\n" + MINIMAL.partition("models:\n")[2].replace("iris", "wine")


@pytest.fixture
def two(run: Run, applied: Server) -> Server:
    """Return a control plane with a second model, which the file of the first does not name."""
    assert run("apply", "-f", "-", stdin=WINE).code == 0
    return applied


def names(run: Run) -> list[str]:
    return run("get", "models", "-o", "name").out.split()


def test_prune_lists_what_it_deletes_and_asks(run: Run, two: Server, minimal: Path) -> None:
    asked = run("apply", "-f", minimal, "--prune")
    assert (asked.code, names(run)) == (Exit.USAGE, ["models/iris", "models/wine"])
    assert "This deletes models/wine" in asked.err
    assert "--yes" in asked.err
    dry = run("apply", "-f", minimal, "--prune", "--dry-run")
    assert (dry.code, "- models/wine" in dry.out) == (Exit.DIFFERENCE, True)
    assert run("apply", "-f", minimal, "--prune", "--yes").code == 0
    assert names(run) == ["models/iris"]
    nothing = run("apply", "-f", minimal, "--prune")
    assert (nothing.code, "Nothing to change" in nothing.out) == (Exit.OK, True)


def test_prune_asks_in_a_terminal(run: Run, two: Server, minimal: Path) -> None:
    for answer, code, left in (("n\n", Exit.INTERRUPTED, 2), ("y\n", Exit.OK, 1)):
        with terminal("apply", "-f", str(minimal), "--prune") as screen:
            screen.until("Delete 1 object? [y/N]")
            screen.type(answer)
            assert screen.end() == code
        assert len(names(run)) == left


def test_prune_that_cuts_traffic_needs_the_permission(run: Run, two: Server, minimal: Path) -> None:
    two.connect("edge-1")
    refused = run("apply", "-f", minimal, "--prune", "--yes")
    assert (refused.code, "model wine loses its path" in refused.err) == (Exit.CONFLICT, True)
    assert run("apply", "-f", minimal, "--prune", "--yes", "--allow-cut").code == 0


def test_kinds_that_no_file_contains_are_left_alone(run: Run, two: Server) -> None:
    assert run("apply", "-f", "-", "--prune", "--yes", stdin=WINE).code == 0
    assert run("get", "all", "-o", "name").out == "gateways/edge\nmodels/wine\n"


def test_a_file_that_moves_traffic_still_needs_force(run: Run, two: Server) -> None:
    moved = MINIMAL.replace("{blue: 10000}", "{green: 10000}")
    refused = run("apply", "-f", "-", "--prune", "--yes", stdin=moved)
    assert (refused.code, len(names(run))) == (Exit.CONFLICT, 2)
