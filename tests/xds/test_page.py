"""Check docs/protocol.md: what it names exists, it has every rule and transcript, and the code cites its rules.

Every rule that the cores are responsible for has a break in `breaks.txt`.
"""

from __future__ import annotations

import re
from fnmatch import fnmatch

from tests.xds.breaks import BREAKS, ROOT, caught, problems

PAGE = (ROOT / "docs/protocol.md").read_text()
TRANSCRIPTS = sorted(path.stem for path in (ROOT / "tests/xds/transcripts").glob("*.txt"))
ROWS = {
    cells[0]: cells[1:]
    for line in PAGE.splitlines()
    if line.startswith("| ")
    if (cells := [cell.strip() for cell in line.strip("| ").split("|")]) and re.fullmatch(r"d?\d+", cells[0])
}
# Each of these defects is a break of a rule.
WITHOUT_BREAKS = {"d2", "d3", "d4", "d6", "d8"}
# The transcripts that belong to no rule.
(OTHERS,) = re.findall(r"^Transcripts that belong to no rule: .*?\n\n", PAGE, re.MULTILINE | re.DOTALL)


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def cited(text: str) -> set[str]:
    """Return the numbers that a text cites: `rule 7`, or `rules 7, 11 and 12`."""
    lists = re.findall(r"\b[Rr]ules? (\d+(?:(?:,| and) \d+)*)", text)
    return {number for each in lists for number in re.findall(r"\d+", each)}


def test_every_rule_and_defect_has_its_row() -> None:
    assert list(ROWS) == [*(str(n) for n in range(1, 38)), *(f"d{n}" for n in range(1, 10))]


def test_what_the_page_names_exists() -> None:
    for word in quoted(PAGE):
        path, _, test = word.partition("::")
        if "/" in path and not path.startswith(("http", "xdstp")):
            assert (ROOT / path).exists(), word
            assert not test or re.search(rf"^(async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE), word


def test_each_row_names_its_code_and_a_test() -> None:
    for rule, cells in ROWS.items():
        where, shown_by = quoted(cells[1]) if rule.isdigit() else [], quoted(cells[2])
        for name in where:
            assert "/" in name or name in "".join((ROOT / w).read_text() for w in where if "/" in w), f"{rule}: {name}"
        assert shown_by, rule
        for name in shown_by:
            assert "/" in name or any(fnmatch(t, name) for t in TRANSCRIPTS), f"{rule}: {name}"


def test_the_cores_cite_the_rules_that_the_page_finds_in_them() -> None:
    for rule, cells in ROWS.items():
        for path in quoted(cells[1]) if rule.isdigit() else ():
            if path.startswith("controlplane/xds/"):
                assert rule in cited((ROOT / path).read_text()), f"{path} does not cite rule {rule}"


def test_every_transcript_is_on_the_page() -> None:
    patterns = [word for text in (*(cells[-1] for cells in ROWS.values()), OTHERS) for word in quoted(text)]
    assert [t for t in TRANSCRIPTS if not any(fnmatch(t, pattern) for pattern in patterns)] == []
    for name in TRANSCRIPTS:
        number = re.match(r"(\d+)-", name)
        assert number is None or any(fnmatch(name, word) for word in quoted(ROWS[str(int(number[1]))][-1])), name


def test_every_break_can_be_made_and_every_rule_has_one() -> None:
    assert list(problems()) == []
    assert {b.rule.lstrip("0") for b in BREAKS} >= ROWS.keys() - WITHOUT_BREAKS


def test_a_break_is_seen() -> None:
    assert caught(next(b for b in BREAKS if b.rule == "08"))
