"""No control character in somebody else's text reaches a terminal."""

from __future__ import annotations

import pytest
from rich.console import Group
from rich.text import Text

from controlplane.cli import changes, messages, output
from controlplane.cli.output import Format
from controlplane.generated.turnout.v1.revision_pb2 import Change

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
