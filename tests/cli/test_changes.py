"""Changes and impacts as lines."""

from __future__ import annotations

import pytest

from controlplane.cli import changes
from controlplane.generated.turnout.v1.revision_pb2 import Impact

EVIL = "a\x1b]0;owned\x07\x1b[2Jb\x9bc\rd\x00\u202ee\u200bf\U000e0041"


def test_warnings_are_a_line_each(capfd: pytest.CaptureFixture[str]) -> None:
    changes.print_warnings(Impact(warnings=["one", EVIL]))
    printed = capfd.readouterr().out
    assert printed.startswith("Warning: one\nWarning: a\\u001b")
    assert len(printed.splitlines()) == 2
