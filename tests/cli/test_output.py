"""What reaches a terminal: no control character of others', in whatever way it is printed."""

from __future__ import annotations

import json

import pytest
import yaml
from rich.console import Group
from rich.text import Text

from controlplane.cli import changes, messages, output, wording
from controlplane.cli.output import Format
from controlplane.generated.turnout.v1.revision_pb2 import Change, Impact
from tests.cli.conftest import Run, Server

EVIL = "a\x1b]0;owned\x07\x1b[2Jb\x9bc\rd\x00\u202ee\u200bf\U000e0041"


def printed() -> None:
    output.line(EVIL)
    output.line(Text(EVIL, "bold"))
    output.notice(EVIL)
    output.raw(EVIL)
    changes.print_changes([Change(name=EVIL, lines=[EVIL])])
    output.show(Group(Text(EVIL), output.table(("NAME",), [(EVIL,), (Text(EVIL),)])))
    messages.print_data({EVIL: EVIL}, Format.JSON)
    messages.print_data({EVIL: EVIL}, Format.YAML)


def test_no_control_character_reaches_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    printed()
    out, err = capsys.readouterr()
    assert not {c for c in out + err if c != "\n" and not c.isprintable()}
    assert out.count("owned") == 12
    assert "a\\u001b]0;owned" in err


def test_data_is_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    for form, read in ((Format.JSON, json.loads), (Format.YAML, yaml.safe_load)):
        value = {"reason": EVIL, "lines": "a\tb\nc", "both": "a\n\u202eb", "fine": "木 \U0001f600", "\u2066key": "\u202e"}
        messages.print_data(value, form)
        shown = capsys.readouterr().out
        assert read(shown) == value
        assert not {c for c in shown if c != "\n" and not c.isprintable()} - {"\t"}


def test_an_id_is_one_line_and_no_wider_than_others(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_name("a\nb\tc\u202ed")
    assert capsys.readouterr().out == "a\\u000ab\\u0009c\\u202ed\n"
    output.show(output.table(("NODE", "STATE"), [("a\nb\tc", Text("d\ne"))]))
    assert capsys.readouterr().out.splitlines()[1].split() == ["a\\u000ab\\u0009c", "d\\u000ae"]
    assert wording.clip("a" * 60) == "a" * 60
    assert wording.clip("a" * 5_000) == "a" * 59 + "…"
    assert wording.indented(" a\nError: b ") == "a\n    Error: b"
    assert wording.resources("a\nb", ["c\nd", "e"]) == "a\\u000ab c\\u000ad and 1 more"
    assert wording.resources("Cluster", ["iris/blue", "iris/green"], 2) == "Cluster iris/blue, iris/green"
    assert len(wording.resources("Cluster", ["x" * 5_000])) < 250
    # More than the API names there may have been.
    assert wording.resources("Cluster", ["x"] * 99, 2) == "Cluster x, x and 97 more"
    assert wording.resources("Cluster", ["x"] * 100, 2) == "Cluster x, x and at least 98 more"


def test_nodes_in_one_line() -> None:
    assert wording.node_list(["nodes/a"]) == "nodes/a"
    assert wording.node_list(["nodes/a", "nodes/b\nc"]) == "nodes/a, nodes/b\\u000ac"
    names = [f"nodes/{i}" for i in range(1_200)]
    assert wording.node_list(names) == "1,200 nodes (nodes/0, nodes/1, nodes/2 and 1,197 more)"


def test_an_author_need_not_be_ascii(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_AUTHOR", "Jörg 木")
    assert "by Jörg 木" in run("switch", "iris", "--to", "green", "--no-wait").out
    assert run("history", "-n", "1", "-o", "json").json["revisions"][0]["author"] == "Jörg 木"
    monkeypatch.setenv("TURNOUT_AUTHOR", "j" * 201)
    done = run("undo", "--no-wait")
    assert done.code == 3
    assert "x-turnout-author: is an author of more than 200 characters" in done.err


def test_warnings_are_a_line_each(capfd: pytest.CaptureFixture[str]) -> None:
    changes.print_warnings(Impact(warnings=["one", EVIL]))
    said = capfd.readouterr().out
    assert said.startswith("Warning: one\nWarning: a\\u001b")
    assert len(said.splitlines()) == 2
