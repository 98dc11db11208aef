"""The cores send the bytes that they sent at commit bddd395 (`recording.py` says how they were recorded)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.xds.recording import api_of_today, read, record

RECORDED = read(Path(__file__).parent / "testdata" / "bddd395.txt")


@pytest.mark.parametrize("name", RECORDED)
def test_the_bytes_are_those_of_commit_bddd395(name: str) -> None:
    assert record(api_of_today(), name) == RECORDED[name]
