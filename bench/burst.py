"""Bursts: changes that are called at once go out together, and a proxy that does not ACK gets one push for all of them.

N simulated proxies (`bench/fleet`), delta ADS, M models. An operator calls several switches at once, over one connection. Each
is a revision, on disk before its call is answered.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import measure
from bench.lines import Lines, cpu_seconds, many_files, simulator
from bench.measure import Figure, digits, environment, table
from bench.scale import QUIET, synced
from bench.sides import Side, turnout

TOGETHER: tuple[int, ...] = (1, 4, 50, 1000)


async def run(
    *, quick: bool, proxies: Sequence[int] = (1000, 5000), models: Sequence[int] = (100,), rounds: int = 3, serve: str = ""
) -> tuple[dict[str, Any], str]:
    """Measure bursts for each N and M. `serve` is further flags for `turnout serve`."""
    together = TOGETHER
    if quick:
        proxies, models, rounds, together = (100,), (10,), 1, (1, 20)
    cells: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    for n in proxies:
        for m in models:
            cell = await measure.rounds(rounds, f"N={n} M={m}", partial(_bursts, n, m, serve, together))
            for count in together:
                figures = {metric: Figure.of(cell[f"{count} {metric}"]) for metric in _TITLES}
                rows.append([f"{n:,}", f"{m:,}", f"{count:,}", *(_text(metric, figure) for metric, figure in figures.items())])
                figures_json = {metric: figure.json() for metric, figure in figures.items()}
                cells.append({"proxies": n, "models": m, "together": count, **figures_json})
    header = ["N", "M", "called at once", *_TITLES.values()]
    parts = ["# Bursts", (__doc__ or "").partition("\n\n")[2].strip(), table(header, rows), _NOTES]
    return {"environment": environment(), "serve": serve, "cells": cells}, "\n\n".join(part.strip() for part in parts)


_TITLES = {
    "pushes": "pushes to a proxy",
    "mute": "to one that does not ACK",
    "answered": "until the last is answered",
    "held": "until all proxies hold the newest",
    "cpu": "server CPU",
}


def _text(metric: str, figure: Figure) -> str:
    if metric in ("pushes", "mute"):
        return f"{digits(figure.median)} ({digits(figure.low)}–{digits(figure.high)})"
    return figure.text("s")


async def _bursts(n: int, m: int, serve: str, together: Sequence[int]) -> dict[str, float]:
    """Return the figures by the number of calls at once and the metric, like `50 pushes`."""
    many_files(n + 1000)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as scratch:
        directory = Path(scratch)
        async with turnout(serve)(m, directory) as side, simulator(f"127.0.0.1:{side.port}", directory) as fleet:
            await fleet.ask("open", n=n)
            await synced(fleet, quiet_ms=QUIET, timeout=600)
            assert side.turnout is not None
            for count in together:
                for metric, value in (await _burst(side, fleet, count, n)).items():
                    figures[f"{count} {metric}"] = value
            for count in together:
                # A push that is still in flight would not count: begin each burst with none.
                await fleet.ask("behave", mute=False)
                await side.turnout.settled(n)
                await fleet.ask("behave", mute=True)
                figures[f"{count} mute"] = (await _burst(side, fleet, count))["pushes"]
    return figures


async def _burst(side: Side, fleet: Lines, count: int, held: int = 0) -> dict[str, float]:
    """Call `count` switches at once, and wait until `held` proxies hold the newest revision."""
    moves = [next(side.moves) for _ in range(count)]
    await fleet.ask("watch")
    before, called = cpu_seconds(side.pid), time.monotonic_ns()
    await asyncio.gather(*(move.call() for move in moves))
    answered = (time.monotonic_ns() - called) / 1e9
    assert side.turnout is not None
    if held:
        await side.turnout.settled(held)
    held_after = (time.monotonic_ns() - called) / 1e9
    answer = await fleet.ask("result", from_ns=called, quiet_ms=QUIET, timeout=60)
    return {
        "pushes": answer["messages"]["max"],
        "answered": answered,
        "held": held_after,
        "cpu": cpu_seconds(side.pid) - before,
    }


_NOTES = """Medians over the rounds, in brackets the least and the greatest. CPU is the server's until 0.3 s after the last
push: for the calls, the commits, the pushes and the ACKs. Simulator, operator and server share the
machine."""
