"""The cores send the bytes that they sent at commit bddd395 (`recording.py` says how they were recorded).

Except in the conversations of `testdata/rule33.txt`, where SotW Envoys come back: since then, clusters that their old routes
may name are removed only after the routes are ACKed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.xds.recording import api_of_today, read, record

RECORDED = read(Path(__file__).parent / "testdata" / "bddd395.txt")
SINCE_RULE_33 = read(Path(__file__).parent / "testdata" / "rule33.txt")


@pytest.mark.parametrize("name", RECORDED)
def test_the_bytes_are_those_of_commit_bddd395(name: str) -> None:
    assert record(api_of_today(), name) == (SINCE_RULE_33.get(name) or RECORDED[name])


def test_only_conversations_with_returning_sotw_envoys_have_changed() -> None:
    assert SINCE_RULE_33.keys() <= {name for name in RECORDED if name.startswith("envoys-sotw-")}
    for name, lines in SINCE_RULE_33.items():
        # The first difference is in the clusters: those of bddd395 were removed there.
        first = next(n for n, (now, then) in enumerate(zip(lines, RECORDED[name], strict=False)) if now != then)
        assert "< cds" in RECORDED[name][first]
