"""`turnout delete`, on a real control plane."""

from __future__ import annotations

from controlplane.cli.exits import Exit
from tests.cli.conftest import Run, Server

EMPTY: dict[str, list[object]] = {"gateways": [], "models": [], "secrets": []}


def test_delete_asks_and_shows_the_live_state(run: Run, applied: Server) -> None:
    unasked = run("delete", "models/iris")
    assert unasked.code == Exit.USAGE
    assert "models/iris: live at gateways/edge, blue 100%" in unasked.err
    assert "--yes" in unasked.err
    result = run("delete", "models/iris", "--yes", "--reason", "end")
    assert (result.code, result.err) == (0, "")
    assert "Revision 2 by ada@tests: end" in result.out
    assert "- models/iris" in result.out
    assert "1 RouteConfiguration removed" in result.out
    assert run("get", "models", "-o", "json").json == {"models": []}


def test_delete_several_in_one_revision(run: Run, applied: Server) -> None:
    assert run("delete", "models/iris", "gateways/edge", "--force", "-o", "name").out == "revisions/2\n"
    assert run("get", "all", "-o", "json").json == EMPTY


def test_deleting_a_missing_or_used_object_is_an_error(run: Run, applied: Server) -> None:
    assert run("delete", "models/wine", "--yes").code == Exit.NOT_FOUND
    used = run("delete", "gateways/edge", "--yes")
    assert used.code == Exit.CONFLICT
    assert "iris" in used.err
