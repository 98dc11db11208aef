"""The fleet at scale: the cost of a switch, a cold start and an idle proxy, beside go-control-plane in two set-ups.

N simulated proxies (`bench/fleet`) with a connection each, M models with a blue and a green cluster each, two endpoints a
cluster. go-control-plane (`bench/peers`) does the same work: **ordinary** is its SnapshotCache with a consistent snapshot a
change, **strongest** a MuxCache of LinearCaches. They run in turn, A B C A B C, each time from the start.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bench.lines import Lines, cpu_seconds, main_seconds, many_files, pss_bytes, simulator
from bench.measure import Figure, digits, environment, table
from bench.sides import ORDINARY, STRONGEST, TURNOUT, Side, Starter, peer, turnout

SETTLE = 2.0  # seconds without work before memory is read
QUIET = 300  # milliseconds without a response after which a switch is over; CPU counts until then
WARM_UP = 1  # switches that don't count: each side's first one is more expensive

SOTW_PROXIES = 1000  # for state of the world one number of proxies is enough

# The upper limits of Turnout's ratio to the peers, by metric, peer and M. For GOALS_FROM proxies or more: below,
# the fixed cost of a switch, like its durable write, is a large part of its cost per proxy.
GOALS_FROM = 1000
GOALS: dict[str, dict[str, dict[int, float]]] = {
    "switch_cpu": {ORDINARY: {10: 0.7, 100: 0.3, 1000: 0.04}, STRONGEST: {10: 1.0, 100: 1.0, 1000: 0.7}},
    "received_p99": {ORDINARY: {10: 0.8, 100: 0.3, 1000: 0.05}, STRONGEST: {10: 1.0, 100: 1.0, 1000: 0.7}},
    "sync_cpu": {ORDINARY: {10: 0.7, 100: 0.3, 1000: 0.1}, STRONGEST: {10: 1.0, 100: 0.5, 1000: 0.2}},
    "memory": {ORDINARY: {10: 0.8, 100: 0.3, 1000: 0.1}, STRONGEST: {10: 1.0, 100: 0.4, 1000: 0.1}},
}
TITLES = {
    "switch_cpu": "server CPU per proxy and switch",
    "received_p99": "p99 from the call to receipt",
    "sync_cpu": "server CPU of a cold sync of all N",
    "memory": "server memory per idle proxy",
}
# Compared without a goal: in production a server does not collect its garbage before it is measured.
BESIDE = {"memory_freed": "the same after the switches, the peers' garbage collected on purpose"}


@dataclass(slots=True)
class Run:
    """The figures of one server with N proxies, from the start of both to the end."""

    sync_cpu: float  # seconds of the server's CPU until all proxies were in sync
    sync_wall: float  # seconds until the last was in sync
    memory: float  # bytes per proxy, of all processes of the server, less `empty`
    empty: int  # bytes before the first proxy
    sync_bytes: float  # per proxy
    sync_fleet_cpu: float  # seconds of the simulator's CPU
    sync_main_cpu: float  # seconds of the server's main process; sync_cpu contains it and the workers'
    memory_freed: float = 0.0  # as `memory`, after the switches and a garbage collection, if the server has a command for that
    # A value for each switch. CPU in seconds per proxy; times in seconds from the operator's call.
    switch_cpu: list[float] = field(default_factory=list)
    main_cpu: list[float] = field(default_factory=list)
    fleet_cpu: list[float] = field(default_factory=list)
    received_p50: list[float] = field(default_factory=list)
    received_p99: list[float] = field(default_factory=list)
    received_max: list[float] = field(default_factory=list)
    acked_p99: list[float] = field(default_factory=list)
    acked_max: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)
    messages: list[float] = field(default_factory=list)

    def value(self, metric: str) -> float:
        """Return a figure of this run: the median of the switches, if there is a value for each."""
        figure = getattr(self, metric)
        return statistics.median(figure) if isinstance(figure, list) else float(figure)


async def measure(
    start: Starter, proxies: int, models: int, *, switches: int = 5, variant: str = "delta", fleet: Sequence[str] = ()
) -> Run:
    """Measure one run; `fleet` are further flags of the simulator.

    Errors: AssertionError if a proxy does not receive its resources or a switch.
    """
    many_files(proxies + 1000)
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as scratch:
        directory = Path(scratch)
        async with start(models, directory) as side, simulator(f"127.0.0.1:{side.port}", directory, *fleet) as lines:
            run = await cold_sync(side, lines, proxies, variant)
            for i in range(WARM_UP + switches):
                await _switch(side, lines, run, proxies, counts=i >= WARM_UP)
            if side.free is not None:
                await side.free()
            await asyncio.sleep(SETTLE)
            run.memory_freed = (pss_bytes(side.pid) - run.empty) / proxies
            return run


async def cold_sync(side: Side, fleet: Lines, proxies: int, variant: str = "delta") -> Run:
    """Open all proxies at once, and wait until each is in sync."""
    # One proxy first: work that a server does once for all proxies is not the cost of a proxy.
    await fleet.ask("open", n=1, group="first", variant=variant)
    await synced(fleet, group="first", timeout=180)
    await fleet.ask("close", group="first")
    await asyncio.sleep(SETTLE)
    empty = pss_bytes(side.pid)
    before, main, fleet_before = cpu_seconds(side.pid), main_seconds(side.pid), (await fleet.ask("stats"))["cpu"]
    called = time.monotonic_ns()
    await fleet.ask("open", n=proxies, variant=variant)
    answer = await synced(fleet, from_ns=called, quiet_ms=QUIET, timeout=600)
    cpu, main = cpu_seconds(side.pid) - before, main_seconds(side.pid) - main
    await asyncio.sleep(SETTLE)
    memory = (pss_bytes(side.pid) - empty) / proxies
    return Run(cpu, answer["synced"]["max"], memory, empty, answer["bytes"]["mean"], answer["cpu"] - fleet_before, main)


async def synced(fleet: Lines, **asked: Any) -> dict[str, Any]:
    """Wait until each proxy of a group is in sync. Errors: AssertionError if that takes too long."""
    answer = await fleet.ask("wait_synced", **asked)
    assert answer["ok"], f"{answer['synced']['n']} of {answer['n']} proxies are in sync; errors: {answer['errors']}"
    return answer


async def _switch(side: Side, fleet: Lines, run: Run, proxies: int, *, counts: bool) -> None:
    move = next(side.moves)
    await fleet.ask("watch", name=move.name, contains=move.contains)
    fleet_before = (await fleet.ask("stats"))["cpu"]
    before, main, called = cpu_seconds(side.pid), main_seconds(side.pid), time.monotonic_ns()
    await move.call()
    answer = await fleet.ask("result", from_ns=called, quiet_ms=QUIET, timeout=180)
    cpu, main = cpu_seconds(side.pid) - before, main_seconds(side.pid) - main
    got = answer["received"]["n"], answer["acked"]["n"]
    assert answer["ok"], (
        f"{got[0]} of {proxies} proxies have received a switch, {got[1]} have ACKed it; errors: {answer['errors']}"
    )
    if not counts:
        return
    run.switch_cpu.append(cpu / proxies)
    run.main_cpu.append(main / proxies)
    run.fleet_cpu.append((answer["cpu"] - fleet_before) / proxies)
    run.received_p50.append(answer["received"]["p50"])
    run.received_p99.append(answer["received"]["p99"])
    run.received_max.append(answer["received"]["max"])
    run.acked_p99.append(answer["acked"]["p99"])
    run.acked_max.append(answer["acked"]["max"])
    run.bytes.append(answer["bytes"]["mean"])
    run.messages.append(answer["messages"]["mean"])


# ---------------------------------------------------------------------------------------------------------- the table

Cell = dict[str, list[Run]]  # by side: a run for each round


async def run(
    *,
    quick: bool,
    proxies: Sequence[int] = (100, 1000, 5000),
    models: Sequence[int] = (10, 100, 1000),
    rounds: int = 3,
    serve: str = "",
    peers: str = "",
    sotw: bool = True,
) -> tuple[dict[str, Any], str]:
    """Measure the three servers in turn for each N and M. `serve`: further flags of `turnout serve`; `peers`: of the peers."""
    if quick:
        proxies, models, rounds = (100,), (10,), 1
    flags = shlex.split(peers)
    starters = {TURNOUT: turnout(serve), ORDINARY: peer("ordinary", *flags), STRONGEST: peer("strongest", *flags)}
    cells: dict[tuple[int, int, str], Cell] = {}
    wanted = [(n, m, "delta") for n in proxies for m in models]
    if sotw:
        wanted += [(SOTW_PROXIES if SOTW_PROXIES in proxies else min(proxies), m, "sotw") for m in models]
    for n, m, variant in wanted:
        cell = cells[n, m, variant] = {name: [] for name in starters}
        for i in range(1 if variant == "sotw" else rounds):
            for name, start in starters.items():
                done = await measure(start, n, m, variant=variant)
                cell[name].append(done)
                print(f"{variant} N={n} M={m} round {i + 1}: {name}: {progress(done)}", flush=True)
    return _results(cells, serve, peers), _page(cells, serve, peers)


def progress(run: Run) -> str:
    """Return the main figures of a run as one line."""
    return (
        f"{run.value('switch_cpu') * 1e6:.0f} µs per proxy and switch, p99 {run.value('received_p99') * 1e3:.0f} ms, "
        f"cold sync {run.sync_cpu:.2f} s CPU in {run.sync_wall:.1f} s, {run.memory / 1024:.0f} KiB per proxy"
    )


def ratios(cell: Mapping[str, list[Run]], metric: str, other: str) -> Figure:
    """Return the ratio of Turnout's figure to another's, round by round."""
    pairs = zip(cell[TURNOUT], cell[other], strict=True)
    return Figure.of(ours.value(metric) / theirs.value(metric) for ours, theirs in pairs)


def _results(cells: Mapping[tuple[int, int, str], Cell], serve: str, peers: str) -> dict[str, Any]:
    cells_json = []
    for (n, m, variant), cell in cells.items():
        sides = {
            name: {metric: Figure.of(r.value(metric) for r in runs).json() for metric in _KEPT} for name, runs in cell.items()
        }
        to_peers = {o: {metric: ratios(cell, metric, o).json() for metric in (*GOALS, *BESIDE)} for o in (ORDINARY, STRONGEST)}
        cells_json.append({"proxies": n, "models": m, "variant": variant, "sides": sides, "ratios": to_peers})
    return {"environment": environment() | versions(), "serve": serve, "peers": peers, "cells": cells_json}


_KEPT = tuple(f.name for f in fields(Run))


def versions() -> dict[str, str]:
    """Return the versions of the peers' libraries."""
    module = (Path(__file__).parent / "peers" / "go.mod").read_text()
    modules = re.findall(r"(go-control-plane|google.golang.org/grpc) (v\S+)", module)
    return {"grpc-go" if "/" in name else name: version for name, version in modules}


def _page(cells: Mapping[tuple[int, int, str], Cell], serve: str, peers: str) -> str:
    parts = ["# The fleet at scale", __doc__.partition("\n\n")[2].strip() if __doc__ else ""]
    if serve:
        parts.append(f"Turnout was started with `{serve}`.")
    if peers:
        parts.append(f"The others were started with `{peers}`.")
    for variant, title in (("delta", "Delta ADS"), ("sotw", "State of the world")):
        these = {(n, m): cell for (n, m, v), cell in cells.items() if v == variant}
        if not these:
            continue
        parts += [f"## {title}: what was measured", table(_COLUMNS, _rows(these))]
        if variant == "delta" and len({n for n, _ in these}) > 1:
            parts += ["## By the number of proxies", table(*_by_proxies(these))]
        if variant == "delta":
            parts += ["## Ratios to the others, and the goals", table(*_goals(these))]
    return "\n\n".join(part.strip() for part in [*parts, _NOTES])


_COLUMNS = [
    "side",
    "N",
    "M",
    "bytes per proxy and switch",
    "CPU µs per proxy and switch",
    "p50 ms",
    "p99 ms",
    "last ACK ms",
    "cold sync: CPU s",
    "wall s",
    "KiB per idle proxy",
    "empty MiB",
]


def _rows(cells: Mapping[tuple[int, int], Cell]) -> list[list[str]]:
    rows = []
    for (n, m), cell in cells.items():
        for name, runs in cell.items():

            def figure_text(metric: str, scale: float = 1.0, runs: list[Run] = runs) -> str:
                f = Figure.of(r.value(metric) * scale for r in runs)
                return digits(f.median) if f.count == 1 else f"{digits(f.median)} ({digits(f.low)}–{digits(f.high)})"

            times = [figure_text(metric, 1e3) for metric in ("received_p50", "received_p99", "acked_max")]
            sync = [
                figure_text("sync_cpu"),
                figure_text("sync_wall"),
                figure_text("memory", 1 / 1024),
                figure_text("empty", 1 / 2**20),
            ]
            rows.append([name, f"{n:,}", f"{m:,}", figure_text("bytes"), figure_text("switch_cpu", 1e6), *times, *sync])
    return rows


def _by_proxies(cells: Mapping[tuple[int, int], Cell]) -> tuple[list[str], list[list[str]]]:
    """Return a table with a column for each number of proxies, so that their figures are side by side."""
    proxies, models = sorted({n for n, _ in cells}), sorted({m for _, m in cells})
    units = {"switch_cpu": ("CPU µs per proxy and switch", 1e6), "received_p99": ("p99 ms", 1e3)}
    units |= {"sync_cpu": ("CPU s of a cold sync", 1), "memory": ("KiB per idle proxy", 1 / 1024)}
    rows = []
    for m in models:
        for metric, (title, scale) in units.items():
            for side in (TURNOUT, ORDINARY, STRONGEST):
                row = [f"{title}: {side}", f"{m:,}"]
                for n in proxies:
                    runs = cells[n, m][side] if (n, m) in cells else []
                    row.append(digits(Figure.of(r.value(metric) * scale for r in runs).median) if runs else "")
                rows.append(row)
    return ["", "M", *(f"N={n:,}" for n in proxies)], rows


def _goals(cells: Mapping[tuple[int, int], Cell]) -> tuple[list[str], list[list[str]]]:
    header = ["Turnout to", *(f"N={n:,} M={m:,}" for n, m in cells)]
    rows = []
    for other in (ORDINARY, STRONGEST):
        for metric, title in (TITLES | BESIDE).items():
            row = [f"{other.rpartition(' ')[2]}: {title}"]
            for (n, m), cell in cells.items():
                ratio = ratios(cell, metric, other)
                goal = GOALS.get(metric, {}).get(other, {}).get(m) if n >= GOALS_FROM else None
                spread = "" if ratio.count == 1 else f" ({ratio.low:.2f}–{ratio.high:.2f})"
                to_peers = "" if goal is None else f" {'≤' if ratio.median <= goal else '**>**'} {goal}"
                row.append(f"{ratio.median:.2f}{spread}{to_peers}")
            rows.append(row)
    return header, rows


_NOTES = """Medians over the rounds, in brackets the least and the greatest; a round's own figure is the median of five
switches after one that does not count. CPU is that of all processes of the server, from the operator's call until no
response has come for 300 ms. Times are from the operator's call: `SwitchTraffic` over gRPC with a durable write to SQLite
for Turnout, a function of the cache for the others. Memory is the proportional set size of all processes two seconds after
the last proxy was in sync, less the set before the first. Turnout sends one RouteConfiguration for each model; the others
have one route table, unless their flags say otherwise."""
