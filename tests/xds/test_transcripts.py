"""Play every conversation in `transcripts/`. Each shows a rule of docs/protocol.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.xds.transcript import play

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda p: p.stem)
def test_a_transcript_has_the_results_that_it_lists(path: Path) -> None:
    play(path)
