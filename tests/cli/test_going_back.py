"""`turnout undo`, `revert` and `restore-state`, on a real control plane."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.cli.client import Client
from controlplane.cli.exits import Exit
from controlplane.generated.turnout.v1.model_service_pb2 import GetModelRequest
from tests.cli.conftest import MINIMAL, Run, Server, split_of
from tests.cli.terminal import terminal

TWO = MINIMAL + MINIMAL.partition("models:\n")[2].replace("iris", "wine")
BLUE, GREEN = {"blue": 10000}, {"green": 10000}


@pytest.fixture
def two(run: Run, server: Server) -> Server:
    """Return the control plane after two models were applied as revision 1."""
    assert run("apply", "-f", "-", stdin=TWO).code == 0
    return server


def by(monkeypatch: pytest.MonkeyPatch, author: str) -> None:
    monkeypatch.setenv("TURNOUT_AUTHOR", author)


def test_undo_returns_one_model_and_names_what_it_undoes(run: Run, two: Server) -> None:
    two.connect("edge-1")
    run("switch", "iris", "--to", "green", "--reason", "better")
    run("switch", "wine", "--to", "green")
    result = run("undo", "iris", "--reason", "slow")
    assert result.code == 0
    assert "Revision 4 by ada@tests: slow" in result.out
    assert "Undoes revision 2 by ada@tests, " in result.out
    assert " ago: better" in result.out
    assert "Held by 1 of 1 node; commit to last ACK" in result.out
    assert (split_of(run), split_of(run, "wine")) == (BLUE, GREEN)


def test_a_second_undo_is_no_redo(run: Run, applied: Server) -> None:
    run("switch", "iris", "--to", "green")
    assert run("undo", "iris").code == 0
    result = run("undo", "iris")
    assert (result.code, result.out) == (Exit.CONFLICT, "")
    assert "Error: models/iris: there is no earlier split: this is the one that the model was created with" in result.err
    assert split_of(run) == BLUE


def test_undo_without_a_model_names_the_candidates(run: Run, two: Server) -> None:
    run("switch", "iris", "--to", "green", "--reason", "better")
    result = run("undo")
    assert (result.code, result.out) == (Exit.USAGE, "")
    assert "name the model to return to its previous split" in result.err
    assert "turnout undo iris  switch in revision 2 by ada@tests, " in result.err
    assert "wine" not in result.err
    assert split_of(run) == GREEN
    # A model whose undo would be an error is no candidate.
    assert run("undo", "iris").code == 0
    assert "turnout undo iris  " not in run("undo").err


def test_undo_of_what_somebody_else_did_needs_a_confirmation(run: Run, two: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    by(monkeypatch, "bob")
    run("switch", "iris", "wine", "--to", "green", "--reason", "both")
    by(monkeypatch, "ada@tests")
    asked = run("undo", "iris")
    assert (asked.code, split_of(run)) == (Exit.USAGE, GREEN)
    assert "split: green 10000 -> blue 10000" in asked.err
    assert "This undoes revision 2 by bob, " in asked.err
    assert "It also moved models/wine, which will stay. `turnout revert 2` takes all of it back." in asked.err
    assert "--yes" in asked.err
    assert run("undo", "iris", "--yes").code == 0
    assert (split_of(run), split_of(run, "wine")) == (BLUE, GREEN)


def test_undo_asks_in_a_terminal(run: Run, two: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    run("switch", "iris", "wine", "--to", "green")
    for answer, code, split in (("n\n", Exit.INTERRUPTED, GREEN), ("y\n", Exit.OK, BLUE)):
        with terminal("undo", "iris", TURNOUT_AUTHOR="ada@tests") as screen:
            screen.until("Undo it? [y/N]")
            screen.type(answer)
            assert screen.end() == code
        assert split_of(run) == split


def test_undo_of_both_models_of_ones_own_switch_does_not_ask(run: Run, two: Server) -> None:
    run("switch", "iris", "wine", "--to", "green")
    result = run("undo", "iris", "wine")
    assert (result.code, result.out.count("Undoes revision 2")) == (0, 1)
    assert run("history", "-n", "1", "-o", "json").json["revisions"][0]["undoneRevision"] == "2"
    assert (split_of(run), split_of(run, "wine")) == (BLUE, BLUE)


def test_a_dry_run_changes_nothing(run: Run, applied: Server) -> None:
    run("switch", "iris", "--to", "green")
    for command in (["undo", "iris"], ["revert", "2"], ["restore-state", "1"]):
        result = run(*command, "--dry-run")
        assert result.code == Exit.DIFFERENCE
        assert "Dry run: nothing was changed." in result.err + result.out
        assert "split: green 10000 -> blue 10000" in result.out
    assert split_of(run) == GREEN


def test_revert_takes_back_one_revision(run: Run, two: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    run("switch", "iris", "wine", "--to", "green", "--reason", "both")
    run("split", "wine", "blue=50%", "green=50%")
    conflict = run("revert", "2")
    assert conflict.code == Exit.CONFLICT
    assert "Error: models/wine.split: a later revision than 2 changed it, too; revision 3 changed it last" in conflict.err
    run("undo", "wine")
    asked = run("revert", "2")
    assert (asked.code, "This takes back revision 2 by ada@tests" in asked.err) == (Exit.USAGE, True)
    result = run("revert", "2", "--yes")
    assert "Takes back revision 2 by ada@tests, " in result.out
    assert (split_of(run), split_of(run, "wine")) == (BLUE, BLUE)
    again = run("revert", "2")
    assert (again.code, "Nothing to change" in again.out) == (0, True)


def test_revert_of_ones_own_change_of_one_object_does_not_ask(
    run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("switch", "iris", "--to", "green")
    by(monkeypatch, "bob")
    assert run("revert", "2").code == Exit.USAGE
    by(monkeypatch, "ada@tests")
    assert run("revert", "2").code == 0
    assert split_of(run) == BLUE


def test_restore_state_names_every_model_that_it_moves(run: Run, two: Server) -> None:
    run("switch", "iris", "--to", "green")
    run("switch", "wine", "--to", "green")
    asked = run("restore-state", "1")
    assert asked.code == Exit.USAGE
    assert "This moves the traffic of models/iris, models/wine." in asked.err
    assert run("restore-state", "1", "--yes").code == 0
    assert (split_of(run), split_of(run, "wine")) == (BLUE, BLUE)
    assert "Nothing to change" in run("restore-state", "1").out
    assert run("restore-state", "99").code == Exit.NOT_FOUND


def test_when_two_people_undo_at_once_the_other_is_told(run: Run, two: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    run("switch", "iris", "--to", "green")
    etag = run("get", "models/iris", "-o", "json").json["models"][0]["etag"]
    assert run("undo", "iris").code == 0
    real = Client.call

    def late(self: Client, rpc: Any, request: Any) -> Any:
        """Answer as if this client had read the model before the first undo."""
        answer = real(self, rpc, request)
        if isinstance(request, GetModelRequest):
            answer.model.etag = etag
        return answer

    monkeypatch.setattr(Client, "call", late)
    told = run("undo", "iris")
    assert told.code == Exit.CONFLICT
    assert "models/iris has changed since it was read" in told.err
    assert "repeat the command only if it is still right" in told.err
    assert split_of(run) == BLUE
