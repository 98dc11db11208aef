"""Flat in users: the cost of moving n users with a loop, with the same loop in batches, and with Turnout.

Turnout has no state per user: the Envoy hashes the key of each request, so there is nothing to update, and n is not an input
of a switch. n only changes who calls: before and after each switch, up to 2,000 distinct users, drawn from the n, call through
the Envoy, and each must get the live version.

The tables of all sizes are made first. Then come rounds; each measures every size of every method, one after the other.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load import ask
from bench.loops import Batches, Committed, Database, Memory, Rebuilt, Rows
from bench.measure import Figure, digits, environment, seconds, table
from bench.rig import OTHER, RECEIVED, USER_HEADER, Turnout, model_servers
from controlplane.demo.envoy import Envoy

MODEL = "ranker"
SAMPLE = 2_000  # users who call around a switch
COMMITTED = 10_000  # most users for the loop that commits each update; with more it takes minutes
COMMITTED_QUICK = 100
SETTLE = 0.03  # seconds after the ACK in which the Envoy's workers take the routes over; their CPU counts
TURNOUT = "Turnout"


@dataclass(slots=True)
class Cell:
    """The costs of one method with one number of users, one value for each round."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    ack: list[float] = field(default_factory=list)  # Turnout only
    sent: list[float] = field(default_factory=list)  # bytes to the Envoy; Turnout only
    resource: list[float] = field(default_factory=list)  # bytes of the resource in them; Turnout only
    moved: int = 0  # users who were seen on one version before and on the other after; Turnout only

    def json(self) -> dict[str, Any]:
        """Return the figures in the form of the results file."""
        values_by_name = {"cpu_seconds": self.cpu, "wall_seconds": self.wall, "ack_seconds": self.ack}
        values_by_name |= {"bytes_sent": self.sent, "resource_bytes": self.resource}
        figures: dict[str, Any] = {name: Figure.of(values).json() for name, values in values_by_name.items() if values}
        return figures | ({"users_seen_moved": self.moved} if self.moved else {})


Cells = dict[str, dict[int, Cell]]


async def run(*, quick: bool) -> tuple[dict[str, Any], str]:
    """Measure, and return the results and a page about them."""
    sizes = [10, 100, 1_000, 10_000] if quick else [10**k for k in range(1, 8)]
    cells: Cells = {}
    started = time.perf_counter()
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="turnout-bench-")))
        ports = await stack.enter_async_context(model_servers())
        turnout = await stack.enter_async_context(Turnout.serve())
        await turnout.apply([MODEL], ports)
        envoy = await stack.enter_async_context(turnout.envoy("bench-users"))
        await turnout.settled(1)

        loops = [loop for n in sizes for loop in _loops(directory, n, stack, COMMITTED_QUICK if quick else COMMITTED)]
        print(f"users: {len(loops)} tables of up to {sizes[-1]:,} users made in {time.perf_counter() - started:.0f} s")

        live = "blue"
        for round_ in range(2 if quick else 5):
            for n, loop in loops:
                _measure_loop(cells.setdefault(loop.name, {}).setdefault(n, Cell()), loop)
            for again in range(2 if quick else 4):
                rng = random.Random(f"{round_} {again}")
                # In another order each time, so that other work of the machine affects all sizes alike.
                for n in rng.sample(sizes, len(sizes)):
                    users = [f"user-{i}" for i in rng.sample(range(n), min(n, SAMPLE))]
                    cell = cells.setdefault(TURNOUT, {}).setdefault(n, Cell())
                    live = await _measure_turnout(cell, turnout, envoy, users, live)
            print(f"users: round {round_ + 1} done after {time.perf_counter() - started:.0f} s")
    return _results(cells, sizes), _page(cells, sizes)


Loop = Memory | Rebuilt | Rows


def _loops(directory: Path, n: int, stack: AsyncExitStack, committed: int) -> list[tuple[int, Loop]]:
    """Return the tables of n users. Those in SQLite share a database; the slowest is left out above `committed` users."""
    database = Database(directory / f"users-{n}.db", n)
    stack.callback(database.close)
    loops: list[Loop] = [Memory(n), Rebuilt(n), Rows(database), Batches(database)]
    if n <= committed:
        loops.append(Committed(database))
    return [(n, loop) for loop in loops]


def _measure_loop(cell: Cell, loop: Loop) -> None:
    version = OTHER[loop.live]
    wall, cpu = time.perf_counter(), time.process_time()
    loop.switch(version)
    cell.cpu.append(time.process_time() - cpu)
    cell.wall.append(time.perf_counter() - wall)
    if not loop.holds(version):
        raise AssertionError(f"{loop.name}: not every user is on {version}")


async def _measure_turnout(cell: Cell, turnout: Turnout, envoy: Envoy, users: list[str], live: str) -> str:
    """Measure one switch; these users call before and after it. Return the version that is live then."""
    version = OTHER[live]
    await _check_users(turnout, users, live)
    sent, cpu = (await envoy.stats(f"^{RECEIVED}$"))[RECEIVED], turnout.process.cpu_seconds() + envoy.cpu_seconds()
    switch = await turnout.switch(MODEL, version)
    await asyncio.sleep(SETTLE)
    cell.cpu.append(turnout.process.cpu_seconds() + envoy.cpu_seconds() - cpu)
    cell.sent.append((await envoy.stats(f"^{RECEIVED}$"))[RECEIVED] - sent)
    cell.resource.append(switch.resource)
    cell.wall.append(switch.wall)
    cell.ack.append(switch.ack)
    await _check_users(turnout, users, version)
    cell.moved += len(users)
    return version


async def _check_users(turnout: Turnout, users: list[str], version: str) -> None:
    path = f"/v2/models/{MODEL}/infer"
    answers = await asyncio.to_thread(ask, turnout.gateway_port, path, USER_HEADER, users)
    if answers != Counter({version: len(users)}):
        raise AssertionError(f"{len(users)} users should get {version}; they got {dict(answers)}")


def _ratio(cells: dict[int, Cell], metric: str) -> float:
    """Return the ratio of the median with the most users to the one with the fewest."""
    return Figure.of(getattr(cells[max(cells)], metric)).median / Figure.of(getattr(cells[min(cells)], metric)).median


def _results(cells: Cells, sizes: list[int]) -> dict[str, Any]:
    methods = {}
    for name, by_size in cells.items():
        ratios = {f"{metric}_ratio": float(f"{_ratio(by_size, metric):.4g}") for metric in ("cpu", "wall")}
        if name == TURNOUT:
            ratios |= {f"{metric}_ratio": float(f"{_ratio(by_size, metric):.4g}") for metric in ("ack", "sent", "resource")}
        methods[name] = {
            "ratio_of": [max(by_size), min(by_size)],
            **ratios,
            "users": {n: by_size[n].json() for n in sorted(by_size)},
        }
    return {"environment": environment(), "sizes": sizes, "methods": methods}


def _page(cells: Cells, sizes: list[int]) -> str:
    header = ["users", *(f"{n:,}" for n in sizes), "largest : smallest"]
    parts = ["# Flat in users", __doc__.partition("\n\n")[2].strip() if __doc__ else ""]
    for title, metric in (("CPU of one switch", "cpu"), ("Wall time of one switch", "wall")):
        rows = [_row(name, by_size, sizes, metric) for name, by_size in cells.items()]
        parts += [f"## {title}", table(header, rows)]
    turnout = cells[TURNOUT]
    rows = [
        ["commit to last ACK", *(Figure.of(turnout[n].ack).text("s") for n in sizes), _times(_ratio(turnout, "ack"))],
        ["bytes to the Envoy", *(Figure.of(turnout[n].sent).text("B") for n in sizes), _times(_ratio(turnout, "sent"))],
        [
            "the resource in them",
            *(Figure.of(turnout[n].resource).text("B") for n in sizes),
            _times(_ratio(turnout, "resource")),
        ],
        ["users seen to move", *(f"{turnout[n].moved:,}" for n in sizes), ""],
    ]
    parts += ["## Turnout's switch", table(header, rows), _NOTES]
    return "\n\n".join(part.strip() for part in parts)


_NOTES = """Medians; in brackets the spread (10th to 90th percentile; least to greatest of fewer than ten). *Italics* are not
measured: they are the largest measured size times the number of users. CPU is that of the loop's process; for Turnout that of
the control plane and the Envoy together, up to 30 ms after the ACK. Wall time is from the operator's call to the answer that
every node holds it; a loop's ends when its table is changed, and no proxy has been notified yet."""


def _row(name: str, by_size: dict[int, Cell], sizes: list[int], metric: str) -> list[str]:
    row = [name]
    largest = max(by_size)
    for n in sizes:
        if n in by_size:
            row.append(Figure.of(getattr(by_size[n], metric)).text("s"))
        else:
            row.append(f"*{seconds(Figure.of(getattr(by_size[largest], metric)).median * n / largest)}*")
    ratio = _times(_ratio(by_size, metric))
    return [*row, ratio if largest == sizes[-1] else f"{ratio} ({largest:,} : {min(by_size)})"]


def _times(ratio: float) -> str:
    return f"{ratio:.2f} ×" if ratio < 10 else f"{digits(ratio)} ×"
