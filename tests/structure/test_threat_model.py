"""docs/threat-model.md names a test for each defence, and each of these tests exists."""

from __future__ import annotations

import re

from tests.structure.test_architecture import exists
from tests.structure.tree import ROOT

TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")


def defences(text: str) -> list[list[str]]:
    """Return the cells of each row of the tables of attacks: what is tried, what stops it, and the tests."""
    tables = re.findall(r"\| tries to \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text)
    return [[cell.strip() for cell in row.strip("|").split("|")] for table in tables for row in table.splitlines()]


def test_each_defence_names_tests_that_exist() -> None:
    rows = defences(TEXT)
    assert len(rows) > 25
    for tried, _, tests in rows:
        names = re.findall(r"`([^`]+)`", tests)
        assert names or tests.startswith("none: "), tried
        assert [name for name in names if not exists(name)] == [], tried


def test_it_says_what_is_not_defended() -> None:
    assert TEXT.partition("## Not defended\n")[2].count("\n- **") >= 5
