"""Flat in models: the cost of a switch of one model, and of a request, with m models.

For each m there are three Envoys with the same models, each with its own control plane: Turnout over delta ADS, Turnout over
state-of-the-world ADS, and the same routes in one table (`bench/flat.py`). They switch in turn, one model each time. Then load
goes to the first and the last model in turn, through Turnout's delta Envoy and through the table's.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.flat import FlatTable
from bench.load import Clients, ask
from bench.measure import Figure, digits, environment, table
from bench.rig import OTHER, RECEIVED, USER_HEADER, Switch, Turnout, model_servers
from controlplane.demo.envoy import Envoy

SETTLE = 0.03  # seconds after the ACK in which the Envoy's workers take the routes over; their CPU counts
DELTA, SOTW, TABLE = "Turnout, delta ADS", "Turnout, SotW ADS", "one flat table"


@dataclass(slots=True)
class Cell:
    """The costs of switches and requests on one Envoy with one number of models, one value for each."""

    sent: list[float] = field(default_factory=list)  # bytes, as the Envoy counts them
    resource: list[float] = field(default_factory=list)  # bytes of the resource in them
    ack: list[float] = field(default_factory=list)  # seconds from commit to ACK
    wall: list[float] = field(default_factory=list)  # seconds from call to complete
    envoy_cpu: list[float] = field(default_factory=list)  # seconds, without the CPU that an idle process would have used
    control_cpu: list[float] = field(default_factory=list)  # seconds, likewise
    # Requests per second, and seconds of the Envoy's CPU for each, to the first and the last model.
    rate: dict[str, list[float]] = field(default_factory=dict)
    request_cpu: dict[str, list[float]] = field(default_factory=dict)
    rss: int = 0  # bytes, after the switches

    def json(self) -> dict[str, Any]:
        """Return the figures in the form of the results file."""
        switches = {
            "bytes_sent": self.sent,
            "resource_bytes": self.resource,
            "ack_seconds": self.ack,
            "wall_seconds": self.wall,
            "envoy_cpu_seconds": self.envoy_cpu,
            "control_plane_cpu_seconds": self.control_cpu,
        }
        figures: dict[str, Any] = {name: Figure.of(values).json() for name, values in switches.items() if values}
        for name, by_model in (("requests_per_second", self.rate), ("envoy_cpu_seconds_per_request", self.request_cpu)):
            if by_model:
                figures[name] = {which: Figure.of(values).json() for which, values in by_model.items()}
                figures[f"{name}_last_to_first"] = float(f"{_last_to_first(by_model):.4g}")
        return figures | {"envoy_rss_bytes": self.rss}


@dataclass(slots=True)
class Side:
    """One of the compared set-ups, and the function that makes a switch in it."""

    cell: Cell
    envoy: Envoy
    port: int
    switch: Callable[[str, str], Awaitable[Switch]]
    # The control plane's CPU so far, in seconds; None if it has no process of its own.
    control_cpu: Callable[[], float] | None
    # Seconds of CPU (of the Envoy, of the control plane) and of time: for each switch, and for each idle period.
    busy: list[tuple[float, float, float]] = field(default_factory=list)
    idle: list[tuple[float, float, float]] = field(default_factory=list)
    live: dict[str, str] = field(default_factory=dict)  # by model; `blue` for a model without an entry


Cells = dict[str, dict[int, Cell]]


async def run(*, quick: bool) -> tuple[dict[str, Any], str]:
    """Measure, and return the results and a page about them."""
    sizes = [1, 20] if quick else [1, 10, 100, 1_000, 2_000]
    switches, pairs, each = (6, 3, 0.2) if quick else (30, 24, 0.3)
    cells: Cells = {name: {} for name in (DELTA, SOTW, TABLE)}
    started = time.perf_counter()
    async with model_servers() as ports:
        for m in sizes:
            models = [f"model-{i:04}" for i in range(1, m + 1)]
            async with AsyncExitStack() as stack:
                sides = [
                    await _turnout(stack, models, ports, "delta"),
                    await _turnout(stack, models, ports, "sotw"),
                    await _flat(stack, models, ports),
                ]
                for name, side in zip(cells, sides, strict=True):
                    cells[name][m] = side.cell
                print(f"models: {m} on three Envoys after {time.perf_counter() - started:.0f} s")
                rng = random.Random(m)
                for round_ in range(switches + 2):
                    # The first two warm up: the first switch of an Envoy allocates what later ones use.
                    for side in sides:
                        await _measure_switch(side, rng.choice(models), keep=round_ >= 2)
                for side in sides:
                    _subtract_idle(side)
                    side.cell.rss = side.envoy.rss_bytes()
                await _measure_requests([sides[0], sides[2]], models, pairs, each)
            print(f"models: {m} measured after {time.perf_counter() - started:.0f} s")
    return _results(cells, sizes), _page(cells, sizes)


async def _turnout(
    stack: AsyncExitStack, models: list[str], ports: Mapping[str, int], variant: Literal["delta", "sotw"]
) -> Side:
    turnout = await stack.enter_async_context(Turnout.serve())
    await turnout.apply(models, ports)
    envoy = await stack.enter_async_context(turnout.envoy(f"bench-{variant}", variant))
    await turnout.settled(1)
    return Side(Cell(), envoy, turnout.gateway_port, turnout.switch, turnout.process.cpu_seconds)


async def _flat(stack: AsyncExitStack, models: list[str], ports: Mapping[str, int]) -> Side:
    flat, envoy, port = await stack.enter_async_context(FlatTable.serve(models, ports))
    return Side(Cell(), envoy, port, flat.switch, None)


async def _measure_switch(side: Side, model: str, *, keep: bool) -> None:
    """Measure one switch, and an idle period before it."""
    version = OTHER[side.live.get(model, "blue")]
    sent = (await side.envoy.stats(f"^{RECEIVED}$"))[RECEIVED]
    # An Envoy with many models is still busy after it has answered for its statistics.
    await asyncio.sleep(SETTLE)

    idle = _clocks(side)
    await asyncio.sleep(SETTLE)
    before = _clocks(side)
    switch = await side.switch(model, version)
    await asyncio.sleep(SETTLE)
    after = _clocks(side)

    side.live[model] = version
    if keep:
        side.idle.append(_passed(idle, before))
        side.busy.append(_passed(before, after))
        side.cell.sent.append((await side.envoy.stats(f"^{RECEIVED}$"))[RECEIVED] - sent)
        side.cell.resource.append(switch.resource)
        side.cell.ack.append(switch.ack)
        side.cell.wall.append(switch.wall)
    answers = await asyncio.to_thread(ask, side.port, _path(model), USER_HEADER, ["anyone"])
    if answers != {version: 1}:
        raise AssertionError(f"{model} should be on {version}; a request got {dict(answers)}")


def _subtract_idle(side: Side) -> None:
    """Subtract from the CPU of switches the CPU that an idle process would have used.

    That is the median of the idle periods: an Envoy with thousands of models is busy for 20 ms every 5 s (statistics), and
    seldom within a switch.
    """
    envoy, control = (statistics.median(i[which] / i[2] for i in side.idle) for which in (0, 1))
    side.cell.envoy_cpu = [b[0] - envoy * b[2] for b in side.busy]
    if side.control_cpu is not None:
        side.cell.control_cpu = [b[1] - control * b[2] for b in side.busy]


def _clocks(side: Side) -> tuple[float, float, float]:
    control = side.control_cpu() if side.control_cpu is not None else 0.0
    return side.envoy.cpu_seconds(), control, time.perf_counter()


def _passed(start: tuple[float, float, float], end: tuple[float, float, float]) -> tuple[float, float, float]:
    return end[0] - start[0], end[1] - start[1], end[2] - start[2]


async def _measure_requests(sides: list[Side], models: list[str], pairs: int, each: float) -> None:
    ends = {"first": models[0], "last": models[-1]}
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(Clients(side.port))) for side in sides]
        for pair in range(pairs + 1):
            # The first pair opens connections to the model servers. Every second pair is in the reverse order.
            for side, client in zip(sides, clients, strict=True):
                for which in ("first", "last") if pair % 2 else ("last", "first"):
                    cpu = side.envoy.cpu_seconds()
                    try:
                        done = await asyncio.to_thread(client.load, _path(ends[which]), each)
                    except OSError as error:
                        side.envoy.process.check()  # raises if the Envoy has ended
                        raise ConnectionError(f"{side.envoy.id}, pair {pair}, {which}: {error}") from None
                    cpu = side.envoy.cpu_seconds() - cpu
                    if done.failed:
                        raise AssertionError(f"{done.failed} of {done.requests} requests to {ends[which]} failed")
                    if pair:
                        side.cell.rate.setdefault(which, []).append(done.rate)
                        side.cell.request_cpu.setdefault(which, []).append(cpu / done.requests)


def _path(model: str) -> str:
    return f"/v2/models/{model}/infer"


def _last_to_first(by_model: dict[str, list[float]]) -> float:
    """Return the median over the pairs of the ratio of the last model's value to the first's."""
    return statistics.median(b / a for a, b in zip(by_model["first"], by_model["last"], strict=True))


def _results(cells: Cells, sizes: list[int]) -> dict[str, Any]:
    sides = {name: {"models": {m: c.json() for m, c in by_size.items()}} for name, by_size in cells.items()}
    return {"environment": environment(), "sizes": sizes, "sides": sides}


def _page(cells: Cells, sizes: list[int]) -> str:
    header = ["models", *(f"{m:,}" for m in sizes), "most : fewest"]
    parts = ["# Flat in models", __doc__.partition("\n\n")[2].strip() if __doc__ else ""]
    switches = [
        ("Bytes sent to the Envoy by a switch of one model", "sent", "B"),
        ("The resource in it", "resource", "B"),
        ("Commit to ACK", "ack", "s"),
        ("Call to complete", "wall", "s"),
        ("Envoy's CPU for a switch", "envoy_cpu", "s"),
        ("Control plane's CPU for a switch", "control_cpu", "s"),
    ]
    for title, field_name, unit in switches:
        rows = []
        for name, by_size in cells.items():
            if not (figures := [Figure.of(v) for m in sizes if (v := getattr(by_size[m], field_name))]):
                continue
            ratio = figures[-1].median / figures[0].median
            rows.append([name, *(f.text(unit) for f in figures), f"{ratio:.2f} ×" if ratio < 10 else f"{digits(ratio)} ×"])
        parts += [f"## {title}", table(header, rows)]
    rows = []
    for name in (DELTA, TABLE):
        for which in ("first", "last"):
            figures = [Figure.of(cells[name][m].rate[which]) for m in sizes]
            rows.append([f"{name}: {which}", *(f.text("/s") for f in figures), ""])
        for title, field_name in (("requests/s", "rate"), ("Envoy's CPU a request", "request_cpu")):
            ratios = (_last_to_first(getattr(cells[name][m], field_name)) for m in sizes)
            rows.append([f"{name}: {title}, last : first", *(f"{r:.3f}" for r in ratios), ""])
        for which in ("first", "last"):
            figures = [Figure.of(cells[name][m].request_cpu[which]) for m in sizes]
            rows.append([f"{name}: Envoy's CPU a request, {which}", *(f.text("s") for f in figures), ""])
    parts += ["## Requests to the first and the last model", table(header, rows)]
    rows = [[name, *(f"{by_size[m].rss / 2**20:.0f} MiB" for m in sizes), ""] for name, by_size in cells.items()]
    parts += ["## Envoy's memory", table(header, rows), _NOTES]
    return "\n\n".join(part.strip() for part in parts)


_NOTES = """Medians; in brackets the spread (10th to 90th percentile; least to greatest of fewer than ten). Bytes vary with
HTTP/2's own frames (window updates, pings). CPU is up to 30 ms after the ACK, less what the same process uses in as long an
idle period. The table's control plane is part of the measuring program: it has neither a store
nor a compiler, its 'commit' is the call, and its CPU is not shown. Ratios of last to first are medians over pairs of runs that
followed each other."""
