"""Storms: all proxies connect at once, some never answer, and a switch comes in the middle.

The fleet is simulated (`bench/fleet`), a connection each, delta ADS. A proxy in a storm either **knows** what it holds (an
Envoy whose control plane was restarted) or is **new** (an Envoy that starts). It is in sync again once it has everything that
it asks for. The distance between the last one and the median shows whether some proxies starve.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import measure
from bench.lines import Lines, cpu_seconds, many_files, simulator
from bench.measure import Figure, environment, table
from bench.scale import QUIET, synced
from bench.sides import Side, turnout

SWITCHES = 5
GOOD, OTHERS = "good", "others"


async def run(
    *, quick: bool, proxies: Sequence[int] = (1000, 5000), models: Sequence[int] = (100,), rounds: int = 3, serve: str = ""
) -> tuple[dict[str, Any], str]:
    """Measure each storm for each N. `serve` is further flags for `turnout serve`."""
    if quick:
        proxies, models, rounds = (100,), (10,), 1
    cells: list[dict[str, Any]] = []
    for n in proxies:
        for m in models:
            cell = await measure.rounds(rounds, f"N={n} M={m}", partial(_storms, n, m, serve))
            cells.append({"proxies": n, "models": m, "seconds": {k: Figure.of(v).json() for k, v in cell.items()}})
    header = ["", *(f"N={cell['proxies']:,} M={cell['models']:,}" for cell in cells)]
    rows = []
    for metric, title in _TITLES.items():
        figures = [cell["seconds"][metric] for cell in cells]
        rows.append([title, *(Figure(**{**f, "count": int(f["count"])}).text("s") for f in figures)])
    parts = ["# Storms", (__doc__ or "").partition("\n\n")[2].strip(), table(header, rows), _NOTES]
    return {"environment": environment(), "serve": serve, "cells": cells}, "\n\n".join(part.strip() for part in parts)


_TITLES = {
    "cold_p50": "all come at once, new: in sync, median",
    "cold_max": "all come at once, new: in sync, the last",
    "restart_ready": "killed and restarted: until it takes calls",
    "restart_p50": "killed and restarted, proxies know: in sync again, median",
    "restart_max": "killed and restarted, proxies know: in sync again, the last",
    "restart_served": "the same, from a proxy's own connection: the longest",
    "restart_new_p50": "killed and restarted, proxies are new: in sync again, median",
    "restart_new_max": "killed and restarted, proxies are new: in sync again, the last",
    "restart_new_served": "the same, from a proxy's own connection: the longest",
    "restart_cpu": "killed and restarted, proxies know: the server's CPU",
    "restart_new_cpu": "killed and restarted, proxies are new: the server's CPU",
    "storm_switch": "a switch in the middle of a storm: from the call until the last has it",
    "storm_sync": "that storm: until the last is in sync",
    "half": "a switch, N/2 that ACK and no others: last receipt",
    "half_mute": "N/2 that ACK, N/2 that never did and are in their first sync: last receipt of those that ACK",
    "half_slow": "N/2 that ACK, N/2 that read 4 KiB a second and are in their first sync: the same",
    "both": "all N in sync, and all ACK: last receipt of one half",
    "gone_mute_first": "then the other half ceases to ACK: last receipt of those that ACK, the first switch",
    "gone_mute": "the same, the switches after it",
    "gone_slow_first": "all N in sync, then the other half reads 4 KiB a second: last receipt of the rest, the first switch",
    "gone_slow": "the same, the switches after it",
}

# How the other proxies of a fleet misbehave.
_BAD: dict[str, dict[str, Any]] = {"mute": {"mute": True}, "slow": {"slow_ms": 1000}}


async def _storms(n: int, m: int, serve: str) -> dict[str, float]:
    many_files(n + 1000)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as scratch:
        directory = Path(scratch)
        async with turnout(serve)(m, directory) as side, simulator(f"127.0.0.1:{side.port}", directory) as fleet:
            called = time.monotonic_ns()
            await fleet.ask("open", n=n)
            answer = await synced(fleet, from_ns=called, quiet_ms=QUIET, timeout=600)
            figures |= {"cold_p50": answer["synced"]["p50"], "cold_max": answer["synced"]["max"]}
            await _restart(side, fleet, figures, "restart")
            await fleet.ask("keep", keep=False)
            await _restart(side, fleet, figures, "restart_new")
            await _in_the_middle(side, fleet, figures)
            await fleet.ask("close")

            await fleet.ask("open", n=n // 2, group=GOOD)
            await synced(fleet, group=GOOD, quiet_ms=QUIET, timeout=600)
            figures["half"] = statistics.median(await _receipts(side, fleet, SWITCHES))
            figures |= await bad_from_the_start(side, fleet, n // 2) | await gone_bad(side, fleet, n // 2)
    return figures


async def bad_from_the_start(side: Side, fleet: Lines, n: int) -> dict[str, float]:
    """Return the receipts of proxies that ACK, while n others misbehave and are in their first sync."""
    figures = {}
    for metric, behaviour in _BAD.items():
        await fleet.ask("open", n=n, group=OTHERS, **behaviour)
        # Proxies that never ACK don't get everything, and slow ones take long, so waiting for half of them is enough.
        await fleet.ask("wait_synced", group=OTHERS, fraction=0.5, timeout=5)
        figures[f"half_{metric}"] = statistics.median(await _receipts(side, fleet, SWITCHES))
        await fleet.ask("close", group=OTHERS)
    return figures


async def gone_bad(side: Side, fleet: Lines, n: int, switches: int = SWITCHES) -> dict[str, float]:
    """Return the receipts of proxies that ACK, while n others misbehave that were in sync before."""
    figures = {}
    both: list[float] = []
    for metric, behaviour in _BAD.items():
        await fleet.ask("open", n=n, group=OTHERS)
        await synced(fleet, group=OTHERS, quiet_ms=QUIET, timeout=600)
        both += await _receipts(side, fleet, switches)
        await fleet.ask("behave", group=OTHERS, **behaviour)
        (figures[f"gone_{metric}_first"],) = await _receipts(side, fleet, 1)
        if metric == "mute":
            await _all_mute(fleet, n)
        figures[f"gone_{metric}"] = statistics.median(await _receipts(side, fleet, switches))
        await fleet.ask("close", group=OTHERS)
    return figures | {"both": statistics.median(both)}


async def _restart(side: Side, fleet: Lines, figures: dict[str, float], metric: str) -> None:
    """Kill the control plane and start it again. The proxies notice that, and reconnect as Envoys do."""
    assert side.turnout is not None
    called = time.monotonic_ns()
    await side.turnout.restart()
    ready = (time.monotonic_ns() - called) / 1e9
    answer = await synced(fleet, from_ns=called, quiet_ms=QUIET, timeout=600)
    figures.setdefault("restart_ready", ready)
    figures[f"{metric}_p50"], figures[f"{metric}_max"] = answer["synced"]["p50"], answer["synced"]["max"]
    figures[f"{metric}_served"] = answer["served"]["max"]
    figures[f"{metric}_cpu"] = cpu_seconds(side.turnout.process.pid)


async def _in_the_middle(side: Side, fleet: Lines, figures: dict[str, float]) -> None:
    """Reopen all connections at once, and call a switch as soon as the first proxies are in sync."""
    move = next(side.moves)
    await fleet.ask("watch", name=move.name, contains=move.contains)
    opened = (await fleet.ask("reopen", keep=False))["at_ns"]
    first = await fleet.ask("wait_synced", fraction=0.02, now=True)
    assert first["ok"], "no proxy reconnected"
    called = time.monotonic_ns()
    await move.call()
    answer = await fleet.ask("result", from_ns=called, timeout=600)
    assert answer["ok"], f"{answer['received']['n']} of {answer['n']} proxies have the switch; errors: {answer['errors']}"
    figures["storm_switch"] = answer["received"]["max"]
    figures["storm_sync"] = (await synced(fleet, from_ns=opened, timeout=600))["synced"]["max"]


async def _receipts(side: Side, fleet: Lines, switches: int) -> list[float]:
    """Return for each switch the seconds from its call until the last proxy of the good group has it."""
    times = []
    for _ in range(switches):
        move = next(side.moves)
        await fleet.ask("watch", name=move.name, contains=move.contains)
        called = time.monotonic_ns()
        await move.call()
        answer = await fleet.ask("result", from_ns=called, group=GOOD, timeout=120)
        assert answer["ok"], f"{answer['received']['n']} of {answer['n']} proxies have a switch; errors: {answer['errors']}"
        await asyncio.sleep(0.2)
        times.append(float(answer["received"]["max"]))
    return times


async def _all_mute(fleet: Lines, n: int) -> None:
    """Check that the mute proxies were in sync before: each received the first switch, and none has ACKed it."""
    answer = await fleet.ask("result", group=OTHERS, timeout=10)
    got = answer["received"]["n"], answer["acked"]["n"]
    assert got == (n, 0), f"{got[0]} of {n} mute proxies were sent a switch, {got[1]} have ACKed it"


_NOTES = """Medians over the rounds, in brackets the least and the greatest. After a kill, times are from the kill: they
contain the start of `turnout serve`, and the time that Envoys wait before they reconnect (at random up to 0.5 s; the limit
doubles with each failure). The last proxy has mostly failed several times while the server was down, and then drawn a long
wait. The server is responsible for the time from a proxy's own connection only. A mute proxy gets one switch, and no more of
that type until it ACKs, so its first switch has its own row. Simulator and server share the machine."""
