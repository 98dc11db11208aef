"""Questions before a change."""

from __future__ import annotations

import io
import sys

import pytest
import typer

from controlplane.cli.confirm import confirm
from controlplane.cli.exits import Ended, Exit


def test_without_a_terminal_a_question_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(typer.BadParameter, match="there is no terminal to ask for confirmation") as caught:
        confirm("Sure?")
    assert caught.value.param_hint == "--yes"


def test_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "confirm", lambda question, err: question == "yes?")
    confirm("yes?")
    with pytest.raises(Ended) as caught:
        confirm("no?")
    assert (caught.value.code, caught.value.message) == (Exit.INTERRUPTED, "nothing was changed")
