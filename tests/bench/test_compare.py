"""`compare`: the statistics, the page, and a server of another checkout."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import compare
from bench.scale import Run, measure
from tests.bench.test_scale import a_run

REPOSITORY = Path(__file__).parents[2]


@given(st.lists(st.floats(0.5, 2), min_size=1, max_size=9))
def test_the_interval_of_a_median_lies_within_the_ratios_and_around_it(ratios: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compare, "_SAMPLES", 200)
        low, high = compare.interval(ratios)
        assert (low, high) == compare.interval(ratios)
    assert min(ratios) <= low <= high <= max(ratios)


def test_the_interval_is_narrow_where_the_ratios_agree() -> None:
    assert compare.interval([1.02] * 7) == (1.02, 1.02)
    low, high = compare.interval([0.98, 0.99, 1.0, 1.01, 1.02, 1.5, 1.0])
    assert 0.98 <= low < 1.0 < high <= 1.5


def test_ratios_are_paired_by_round_and_judged() -> None:
    def runs(*costs: float) -> list[Run]:
        return [a_run(cost) for cost in costs]

    # The machine becomes slower from round to round, and this checkout takes a tenth more in each.
    cell = {compare.THAT: runs(10, 20, 40), compare.THIS: runs(11, 22, 44)}
    assert compare.ratios(cell, "switch_cpu", 1_000) == pytest.approx([1.1] * 3)
    compared = compare._compared(1_000, 10, cell)
    assert compared["figures"]["memory"]["ratio"] == 1.1
    assert compared["figures"]["memory"]["interval"] == [1.1, 1.1]
    page = compare._page([compared], "--workers 2")
    assert "| server CPU per proxy and switch | 1,000 | 10 | 20.0 µs | 22.0 µs | 1.100 | 1.100–1.100 | **no** |" in page
    assert "`--workers 2`" in page
    same = compare._compared(1_000, 10, {compare.THAT: runs(10, 20), compare.THIS: runs(10, 20)})
    assert page.count("**no**") == 5
    assert "**no**" not in compare._page([same], "")


def test_a_folder_without_a_virtual_environment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"\.venv/bin/python does not exist: set up that checkout first"):
        compare.starter(tmp_path)


@pytest.mark.slow
async def test_a_server_of_another_checkout_is_driven(go: Path, tmp_path: Path) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    for folder in ("bench", "controlplane"):
        (tmp_path / folder).symlink_to(REPOSITORY / folder)
    run = await measure(compare.starter(tmp_path), 5, 2, switches=2)
    assert len(run.switch_cpu) == 2
    assert all(cpu > 0 for cpu in run.switch_cpu)
    assert 0 < run.value("received_p99") < 10
    assert run.sync_cpu > 0
