"""Bursts: changes that are called together go out together, and cost who does not ACK one push.

N simulated proxies (`bench/fleet`), delta ADS, M models; as many switches as it says are called at once, over one connection
of an operator. Each is a revision of its own, on disk before it is answered.
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
    """Measures bursts for each N and M; `serve` is further flags for `turnout serve`."""
    together = TOGETHER
    if quick:
        proxies, models, rounds, together = (100,), (10,), 1, (1, 20)
    found: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    for n in proxies:
        for m in models:
            cell = await measure.rounds(rounds, f"N={n} M={m}", partial(_bursts, n, m, serve, together))
            for count in together:
                figures = {what: Figure.of(cell[f"{count} {what}"]) for what in _TITLES}
                rows.append([f"{n:,}", f"{m:,}", f"{count:,}", *(_text(what, figure) for what, figure in figures.items())])
                kept = {what: figure.json() for what, figure in figures.items()}
                found.append({"proxies": n, "models": m, "together": count, **kept})
    header = ["N", "M", "called at once", *_TITLES.values()]
    parts = ["# Bursts", (__doc__ or "").partition("\n\n")[2].strip(), table(header, rows), _NOTES]
    return {"environment": environment(), "serve": serve, "cells": found}, "\n\n".join(part.strip() for part in parts)


_TITLES = {
    "pushes": "pushes to a proxy",
    "mute": "to one that does not ACK",
    "answered": "until the last is answered",
    "held": "until all proxies hold the newest",
    "cpu": "server CPU",
}


def _text(what: str, figure: Figure) -> str:
    if what in ("pushes", "mute"):
        return f"{digits(figure.median)} ({digits(figure.low)}–{digits(figure.high)})"
    return figure.text("s")


async def _bursts(n: int, m: int, serve: str, together: Sequence[int]) -> dict[str, float]:
    """By how many were called at once, and what was measured: `50 pushes`."""
    many_files(n + 1000)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as scratch:
        directory = Path(scratch)
        async with turnout(serve)(m, directory) as side, simulator(f"127.0.0.1:{side.port}", directory) as fleet:
            await fleet.ask("open", n=n)
            await synced(fleet, quiet_ms=QUIET, timeout=600)
            assert side.turnout is not None
            for count in together:
                for what, value in (await _burst(side, fleet, count, n)).items():
                    found[f"{count} {what}"] = value
            for count in together:
                # What is in flight already is nothing that is sent for these: each time from the beginning.
                await fleet.ask("behave", mute=False)
                await side.turnout.settled(n)
                await fleet.ask("behave", mute=True)
                found[f"{count} mute"] = (await _burst(side, fleet, count))["pushes"]
    return found


async def _burst(side: Side, fleet: Lines, count: int, held: int = 0) -> dict[str, float]:
    """So many switches at once, until so many proxies hold the newest revision."""
    moves = [next(side.moves) for _ in range(count)]
    await fleet.ask("watch")
    before, called = cpu_seconds(side.pid), time.monotonic_ns()
    await asyncio.gather(*(move.call() for move in moves))
    answered = (time.monotonic_ns() - called) / 1e9
    assert side.turnout is not None
    if held:
        await side.turnout.settled(held)
    whole = (time.monotonic_ns() - called) / 1e9
    came = await fleet.ask("result", from_ns=called, quiet_ms=QUIET, timeout=60)
    return {
        "pushes": came["messages"]["max"],
        "answered": answered,
        "held": whole,
        "cpu": cpu_seconds(side.pid) - before,
    }


_NOTES = """Medians over the rounds, in brackets the least and the greatest. CPU is all that the server spends until
0.3 s after the last push: on the calls, the commits, the pushes and the ACKs. Simulator, operator and server share the
machine."""
