"""The page of `scale`, from runs that are made up."""

from __future__ import annotations

import re

from bench import scale
from bench.scale import Run
from bench.sides import ORDINARY, STRONGEST, TURNOUT


def a_run(cost: float) -> Run:
    run = Run(cost, cost, cost * 1024, 2**20, 1.0, 0.1, 0.1, cost)
    for figure in ("switch_cpu", "main_cpu", "received_p50", "received_p99", "received_max", "acked_max", "bytes"):
        getattr(run, figure).append(cost / 1e6)
    return run


def cells(*proxies: int) -> dict[tuple[int, int, str], scale.Cell]:
    sides = {TURNOUT: 1.0, ORDINARY: 4.0, STRONGEST: 2.0}
    return {(n, 10, "delta"): {side: [a_run(cost * n)] for side, cost in sides.items()} for n in proxies}


def test_numbers_of_proxies_are_side_by_side() -> None:
    page = scale._page(cells(100, 1_000, 5_000), "", "")
    assert "|  | M | N=100 | N=1,000 | N=5,000 |" in page
    assert f"| CPU µs per proxy and switch: {TURNOUT} | 10 | 100 | 1,000 | 5,000 |" in page
    assert f"| KiB per idle proxy: {STRONGEST} | 10 | 200 | 2,000 | 10,000 |" in page
    assert "By the number of proxies" not in scale._page(cells(1_000), "", "")


def test_goals_are_for_many_proxies() -> None:
    page = scale._page(cells(100, 1_000), "", "")
    (line,) = [line for line in page.splitlines() if line.startswith("| ordinary: server CPU per proxy and switch")]
    assert re.fullmatch(r".*\| 0\.25 \| 0\.25 ≤ 0\.7 \|", line)
