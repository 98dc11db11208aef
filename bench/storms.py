"""Storms: everybody comes at once, some never answer, and a switch falls into the middle of it.

The fleet is simulated (`bench/fleet`), a connection each, delta ADS. A proxy in a storm **knows** what it held (an Envoy whose
control plane was restarted) or comes **new** (an Envoy that starts). It is in sync again when it has everything that it asks
for; that the last one is, and how far behind the median, says whether any starves.
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
    """Measures each storm for each N; `serve` is further flags for `turnout serve`."""
    if quick:
        proxies, models, rounds = (100,), (10,), 1
    found: list[dict[str, Any]] = []
    for n in proxies:
        for m in models:
            cell = await measure.rounds(rounds, f"N={n} M={m}", partial(_storms, n, m, serve))
            found.append({"proxies": n, "models": m, "seconds": {k: Figure.of(v).json() for k, v in cell.items()}})
    header = ["", *(f"N={cell['proxies']:,} M={cell['models']:,}" for cell in found)]
    rows = []
    for what, title in _TITLES.items():
        figures = [cell["seconds"][what] for cell in found]
        rows.append([title, *(Figure(**{**f, "count": int(f["count"])}).text("s") for f in figures)])
    parts = ["# Storms", (__doc__ or "").partition("\n\n")[2].strip(), table(header, rows), _NOTES]
    return {"environment": environment(), "serve": serve, "cells": found}, "\n\n".join(part.strip() for part in parts)


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

# What the others of a fleet do badly.
_BAD: dict[str, dict[str, Any]] = {"mute": {"mute": True}, "slow": {"slow_ms": 1000}}


async def _storms(n: int, m: int, serve: str) -> dict[str, float]:
    many_files(n + 1000)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as scratch:
        directory = Path(scratch)
        async with turnout(serve)(m, directory) as side, simulator(f"127.0.0.1:{side.port}", directory) as fleet:
            called = time.monotonic_ns()
            await fleet.ask("open", n=n)
            came = await synced(fleet, from_ns=called, quiet_ms=QUIET, timeout=600)
            found |= {"cold_p50": came["synced"]["p50"], "cold_max": came["synced"]["max"]}
            await _restart(side, fleet, found, "restart")
            await fleet.ask("keep", keep=False)
            await _restart(side, fleet, found, "restart_new")
            await _in_the_middle(side, fleet, found)
            await fleet.ask("close")

            await fleet.ask("open", n=n // 2, group=GOOD)
            await synced(fleet, group=GOOD, quiet_ms=QUIET, timeout=600)
            found["half"] = statistics.median(await _receipts(side, fleet, SWITCHES))
            found |= await bad_from_the_start(side, fleet, n // 2) | await gone_bad(side, fleet, n // 2)
    return found


async def bad_from_the_start(side: Side, fleet: Lines, n: int) -> dict[str, float]:
    """Beside those that ACK there are n that behave badly, and are in their first sync."""
    found = {}
    for what, behaviour in _BAD.items():
        await fleet.ask("open", n=n, group=OTHERS, **behaviour)
        # Those that never ACK are not sent everything, and those that read slowly take long: some is enough.
        await fleet.ask("wait_synced", group=OTHERS, fraction=0.5, timeout=5)
        found[f"half_{what}"] = statistics.median(await _receipts(side, fleet, SWITCHES))
        await fleet.ask("close", group=OTHERS)
    return found


async def gone_bad(side: Side, fleet: Lines, n: int, switches: int = SWITCHES) -> dict[str, float]:
    """Beside those that ACK there are n that did so too, until all were in sync."""
    found = {}
    both: list[float] = []
    for what, behaviour in _BAD.items():
        await fleet.ask("open", n=n, group=OTHERS)
        await synced(fleet, group=OTHERS, quiet_ms=QUIET, timeout=600)
        both += await _receipts(side, fleet, switches)
        await fleet.ask("behave", group=OTHERS, **behaviour)
        (found[f"gone_{what}_first"],) = await _receipts(side, fleet, 1)
        if what == "mute":
            await _all_mute(fleet, n)
        found[f"gone_{what}"] = statistics.median(await _receipts(side, fleet, switches))
        await fleet.ask("close", group=OTHERS)
    return found | {"both": statistics.median(both)}


async def _restart(side: Side, fleet: Lines, found: dict[str, float], what: str) -> None:
    """The control plane is killed, and started anew: the proxies notice by themselves, and come back as Envoys do."""
    assert side.turnout is not None
    called = time.monotonic_ns()
    await side.turnout.restart()
    ready = (time.monotonic_ns() - called) / 1e9
    came = await synced(fleet, from_ns=called, quiet_ms=QUIET, timeout=600)
    found.setdefault("restart_ready", ready)
    found[f"{what}_p50"], found[f"{what}_max"] = came["synced"]["p50"], came["synced"]["max"]
    found[f"{what}_served"] = came["served"]["max"]
    found[f"{what}_cpu"] = cpu_seconds(side.turnout.process.pid)


async def _in_the_middle(side: Side, fleet: Lines, found: dict[str, float]) -> None:
    """All connections are opened anew at once, and a switch is called when the first proxies are through."""
    move = next(side.moves)
    await fleet.ask("watch", name=move.name, contains=move.contains)
    opened = (await fleet.ask("reopen", keep=False))["at_ns"]
    first = await fleet.ask("wait_synced", fraction=0.02, now=True)
    assert first["ok"], "no proxy came back"
    called = time.monotonic_ns()
    await move.call()
    came = await fleet.ask("result", from_ns=called, timeout=600)
    assert came["ok"], f"{came['received']['n']} of {came['n']} proxies have the switch; errors: {came['errors']}"
    found["storm_switch"] = came["received"]["max"]
    found["storm_sync"] = (await synced(fleet, from_ns=opened, timeout=600))["synced"]["max"]


async def _receipts(side: Side, fleet: Lines, switches: int) -> list[float]:
    """For each switch, seconds from its call until the last proxy of the good group has it."""
    found = []
    for _ in range(switches):
        move = next(side.moves)
        await fleet.ask("watch", name=move.name, contains=move.contains)
        called = time.monotonic_ns()
        await move.call()
        came = await fleet.ask("result", from_ns=called, group=GOOD, timeout=120)
        assert came["ok"], f"{came['received']['n']} of {came['n']} proxies have a switch; errors: {came['errors']}"
        await asyncio.sleep(0.2)
        found.append(float(came["received"]["max"]))
    return found


async def _all_mute(fleet: Lines, n: int) -> None:
    """Checks that the others were in sync: they were sent the first switch after they went mute, and none has ACKed it."""
    came = await fleet.ask("result", group=OTHERS, timeout=10)
    got = came["received"]["n"], came["acked"]["n"]
    assert got == (n, 0), f"{got[0]} of {n} mute proxies were sent a switch, {got[1]} have ACKed it"


_NOTES = """Medians over the rounds, in brackets the least and the greatest. After a kill, times are from the kill: what
`turnout serve` takes to start is inside, and so is what Envoys wait before they connect anew (at random up to 0.5 s, the limit
doubles with each failure). The last one is mostly one that failed several times while the server was down and then drew a long
wait; what the server is to answer for is the time from a proxy's own connection. A mute proxy is sent one switch, and no more
of that type until it ACKs: so its first switch is told apart. Simulator and server share the machine."""
