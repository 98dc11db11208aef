"""Two checkouts of Turnout side by side: this one, and another one, like that of the commit before a change.

One simulated fleet, this checkout's, connects to the servers of both. Each server runs with the Python of its own checkout
(`.venv/bin/python`). They take turns, other, this, other, this, each time with a new server, so that a machine that becomes
slower or faster during the run does not favour one of them. A round is one run of each.
"""

from __future__ import annotations

import itertools
import json
import random
import shlex
import statistics
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.lines import Lines
from bench.measure import Figure, digits, environment, table
from bench.rig import OTHER
from bench.scale import Run, measure, progress
from bench.sides import PORTS, Move, Side, Starter, names

THIS, THAT = "this", "other"


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure that is compared."""

    title: str
    unit: str
    scale: float  # from seconds or bytes to the unit
    of: Callable[[Run, int], float]  # from a run with this many proxies


FIGURES: Mapping[str, Compared] = {
    "switch_cpu": Compared("server CPU per proxy and switch", "µs", 1e6, lambda run, _: run.value("switch_cpu")),
    "received_p99": Compared("p99 from the call to receipt", "ms", 1e3, lambda run, _: run.value("received_p99")),
    "sync_cpu": Compared("server CPU of a cold sync of all proxies", "s", 1, lambda run, _: run.sync_cpu),
    "memory": Compared("server memory per idle proxy", "KiB", 1 / 1024, lambda run, _: run.memory),
    "all_memory": Compared("server memory with all proxies", "MiB", 1 / 2**20, lambda run, n: run.empty + run.memory * n),
}
# The ratio of this checkout to the other that counts as no slower and no larger.
ALLOWED = 1.05

_SAMPLES = 10_000  # bootstrap samples
_CONFIDENCE = 0.95


def starter(path: Path, flags: str = "") -> Starter:
    """Return the starter of the `turnout serve` of a checkout, with further flags. Errors: RuntimeError if it has no venv."""
    path = path.resolve()
    python = path / ".venv" / "bin" / "python"
    if not python.exists():
        raise RuntimeError(f"{python} does not exist: set up that checkout first (make setup)")

    @asynccontextmanager
    async def start(models: int, directory: Path) -> AsyncIterator[Side]:
        driver = Path(__file__).with_name("driver.py")
        command = [str(python), str(driver), str(models), "2", json.dumps(PORTS), *shlex.split(flags)]
        async with Lines.start(f"turnout of {path}", command, directory / "driver.log", cwd=path) as lines:
            yield Side(lines.hello["pid"], lines.hello["port"], _moves(lines, models))

    return start


def _moves(lines: Lines, models: int) -> Any:
    live = dict.fromkeys(names(models), "blue")
    for name in itertools.cycle(live):
        live[name] = version = OTHER[live[name]]

        async def call(name: str = name, version: str = version) -> object:
            return await lines.ask("move", model=name, version=version)

        yield Move(name, f"{name}/{version}", call)


def interval(ratios: Sequence[float], seed: int = 1) -> tuple[float, float]:
    """Return the bootstrap interval of the median of these ratios, at 95 %. The same input gives the same interval."""
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(_SAMPLES))
    cut = int(_SAMPLES * (1 - _CONFIDENCE) / 2)
    return medians[cut], medians[-1 - cut]


Pairs = dict[str, list[Run]]  # by side: a run for each round


async def run(
    *,
    quick: bool,
    checkout: str = "",
    proxies: Sequence[int] = (1000,),
    models: Sequence[int] = (10, 100),
    rounds: int = 7,
    serve: str = "",
) -> tuple[dict[str, Any], str]:
    """Compare this checkout with the one in the folder `checkout`. `serve` is further flags for both servers.

    Errors: RuntimeError if the other checkout can't be started; AssertionError if a proxy does not get what it should.
    """
    if quick:
        proxies, models, rounds = (100,), (10,), 2
    starters = {THAT: starter(Path(checkout), serve), THIS: starter(Path(__file__).parents[1], serve)}
    cells: dict[tuple[int, int], Pairs] = {}
    for n, m in itertools.product(proxies, models):
        cell = cells[n, m] = {name: [] for name in starters}
        for i in range(rounds):
            for name, start in starters.items():
                done = await measure(start, n, m)
                cell[name].append(done)
                print(f"N={n} M={m} round {i + 1}: {name}: {progress(done)}", flush=True)
    compared = [_compared(n, m, cell) for (n, m), cell in cells.items()]
    results = {"environment": environment(), "serve": serve, "cells": compared}
    return results, _page(compared, serve)


def ratios(cell: Pairs, figure: str, proxies: int) -> list[float]:
    """Return this checkout's figure over the other's, round by round."""
    of = FIGURES[figure].of
    return [of(ours, proxies) / of(theirs, proxies) for ours, theirs in zip(cell[THIS], cell[THAT], strict=True)]


def _compared(proxies: int, models: int, cell: Pairs) -> dict[str, Any]:
    figures = {}
    for figure, compared in FIGURES.items():
        paired = ratios(cell, figure, proxies)
        low, high = interval(paired)
        figures[figure] = {
            **{name: Figure.of(compared.of(r, proxies) for r in runs).json() for name, runs in cell.items()},
            "ratio": round(statistics.median(paired), 4),
            "interval": [round(low, 4), round(high, 4)],
            "ratios": [round(ratio, 4) for ratio in paired],
        }
    return {"proxies": proxies, "models": models, "rounds": len(cell[THIS]), "figures": figures}


def _page(compared: Sequence[Mapping[str, Any]], serve: str) -> str:
    header = ["", "N", "M", "other", "this", "ratio", f"interval, {_CONFIDENCE:.0%}", f"at most {ALLOWED}"]
    rows = []
    for cell in compared:
        for figure, about in FIGURES.items():
            values = cell["figures"][figure]
            medians = [f"{digits(values[name]['median'] * about.scale)} {about.unit}" for name in (THAT, THIS)]
            low, high = values["interval"]
            verdict = "yes" if values["ratio"] <= ALLOWED else "**no**"
            size = [f"{cell['proxies']:,}", f"{cell['models']:,}"]
            rows.append([about.title, *size, *medians, f"{values['ratio']:.3f}", f"{low:.3f}–{high:.3f}", verdict])
    parts = ["# Two checkouts", __doc__.partition("\n\n")[2].strip() if __doc__ else ""]
    if serve:
        parts.append(f"Both were started with `{serve}`.")
    return "\n\n".join([*parts, table(header, rows).strip(), _NOTES])


_NOTES = """N proxies, M models. Medians over the rounds. A ratio is this checkout's figure over the other's in the same round;
the table has the median of these, and the bootstrap interval of that median. A round's own figure for switches is the median
of five, after one that does not count. The p99 includes about 0.2 ms, in which each call is passed to a client of
the same checkout. With few proxies, memory per proxy can't be told from noise."""
