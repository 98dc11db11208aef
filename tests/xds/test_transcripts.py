"""Every conversation in `transcripts/`: the protocol's rules, one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.xds.transcript import play

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda p: p.stem)
def test_a_conversation_goes_as_written(path: Path) -> None:
    play(path)
