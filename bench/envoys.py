"""A fleet of real Envoys: how long a switch takes to reach all of them, and when the old version answers for the last time.

All Envoys share one port of this machine (each binds it with SO_REUSEPORT, as Envoy does by default), so there is one gateway,
and the kernel spreads the connections of the load over them. The load begins once all Envoys run, and counts only if every
one of them has answered. It continues through the switches. The record of every request, and not the control plane, says when
users got the new version.
"""

from __future__ import annotations

import asyncio
import shlex
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.lines import cpu_seconds, many_files, pss_bytes
from bench.measure import Figure, digits, environment, table
from bench.rig import GATEWAY, OTHER, Switch, Turnout
from controlplane.demo.envoy import Envoy
from controlplane.demo.lean import LeanServer
from controlplane.demo.load import Group, Load, Records

MODELS = 10
AT_ONCE = 4  # Envoys that start at the same time
CONNECTIONS = 8  # connections of the load, for each Envoy on average
RATE = 10.0  # requests a second for each Envoy on average,
MOST = 1_000.0  # and at most this many through all of them: two cores can do that beside the Envoys' own work
SETTLE = 0.03  # seconds after the ACK in which the Envoys' workers take the routes over; their CPU counts
PAUSE = 1.0  # seconds between switches
ANSWERED = f"http.{GATEWAY}.downstream_rq_total"


@dataclass(slots=True)
class Cell:
    """The figures of switches without load or under load, one value for each switch."""

    ack: list[float] = field(default_factory=list)  # seconds from the commit to the last ACK
    wall: list[float] = field(default_factory=list)  # seconds from the call to the answer that it is complete
    # Without load only: CPU seconds of the control plane, and of each Envoy on average.
    control_cpu: list[float] = field(default_factory=list)
    envoy_cpu: list[float] = field(default_factory=list)
    # Under load only: seconds from the commit to the last request that the old version answered: sent, and answered.
    sent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    # Under load only: requests that the old version answered though they were sent after the commit, and after the last ACK.
    between: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """Return the figures in the form of the results file."""
        figures = {"ack_seconds": self.ack, "wall_seconds": self.wall}
        figures |= {"control_cpu_seconds": self.control_cpu, "envoy_cpu_seconds": self.envoy_cpu}
        figures |= {"last_old_sent_seconds": self.sent, "last_old_answered_seconds": self.answered}
        figures |= {"old_after_commit": self.between, "old_after_last_ack": self.late}
        return {name: Figure.of(values).json() for name, values in figures.items() if values}


@dataclass(frozen=True, slots=True)
class Fleet:
    """Figures of the whole run."""

    serve: str  # flags of `turnout serve`
    envoys: int
    start: float  # seconds until all Envoys held the first revision
    memory: float  # bytes of an Envoy, the median; pages that several share are split among them
    control_memory: float  # bytes of the control plane
    requests: int
    failed: int
    fewest: int  # requests that the Envoy with the fewest answered


async def run(*, quick: bool, count: int | None = None, serve: str = "") -> tuple[dict[str, Any], str]:
    """Measure, and return the results and a page about them. `serve` is further flags for `turnout serve`."""
    count = count or (8 if quick else 100)
    times = 3 if quick else 20
    many_files(CONNECTIONS * count + 1_000)
    models = [f"model-{n:02}" for n in range(MODELS)]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(LeanServer())
        turnout = await stack.enter_async_context(Turnout.serve(*shlex.split(serve)))
        await turnout.apply(models, server.ports)
        start_time = time.perf_counter()
        envoys = await stack.enter_async_context(_started(turnout, count))
        await turnout.settled(count)
        start = time.perf_counter() - start_time
        print(f"envoys: {count} hold the first revision after {start:.0f} s")

        quiet, live = Cell(), "blue"
        for _ in range(times):
            live = OTHER[live]
            await _switch(quiet, turnout, envoys, models[0], live)
        load = await stack.enter_async_context(_loaded(turnout, envoys, models[0]))
        loaded, switches = Cell(), []
        for _ in range(times):
            await asyncio.sleep(PAUSE)
            live = OTHER[live]
            switches.append((live, await turnout.switch(models[0], live)))
        await asyncio.sleep(PAUSE)
        answered = await _answered(envoys)
        memory = statistics.median(pss_bytes(e.process.pid) for e in envoys)
        control_memory = pss_bytes(turnout.process.pid)
        records = await load.stop()
    _read(loaded, switches, records)
    if records.failed:
        raise AssertionError(f"{records.failed} of {len(records.requests)} requests failed, the first: {records.failures[0]}")
    fleet = Fleet(serve, count, start, memory, control_memory, len(records.requests), records.failed, min(answered))
    return _results(fleet, quiet, loaded), _page(fleet, quiet, loaded)


@asynccontextmanager
async def _started(turnout: Turnout, count: int) -> AsyncIterator[list[Envoy]]:
    """Start this many Envoys, a few at a time, and wait until each has its first configuration."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with AsyncExitStack() as stack:

        async def start(n: int) -> Envoy:
            async with gate:
                return await stack.enter_async_context(turnout.envoy(f"envoy-{n:03}"))

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(start(n)) for n in range(count)]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        envoys = [task.result() for task in tasks]
        yield envoys
        await asyncio.gather(*(envoy.stop() for envoy in envoys))


async def _switch(cell: Cell, turnout: Turnout, envoys: list[Envoy], model: str, version: str) -> None:
    control, fleet = cpu_seconds(turnout.process.pid), _cpu(envoys)
    switch = await turnout.switch(model, version)
    await asyncio.sleep(SETTLE)
    cell.control_cpu.append(cpu_seconds(turnout.process.pid) - control)
    cell.envoy_cpu.append((_cpu(envoys) - fleet) / len(envoys))
    cell.ack.append(switch.ack)
    cell.wall.append(switch.wall)


def _cpu(envoys: list[Envoy]) -> float:
    return sum(envoy.cpu_seconds() for envoy in envoys)


@asynccontextmanager
async def _loaded(turnout: Turnout, envoys: list[Envoy], model: str) -> AsyncIterator[Load]:
    """Start a load that goes through all Envoys."""
    path, n = f"/v2/models/{model}/infer", len(envoys)
    connections, rate = CONNECTIONS * n, min(RATE * n, MOST)
    for _ in range(10):
        group = Group("127.0.0.1", turnout.gateway_port, path, connections=connections, rate=rate)
        load = Load([group], users=10_000)
        try:
            before = await _answered(envoys)
            await load.start()
            # Each connection has sent its first request by then, as `rate` spreads them.
            await asyncio.sleep(connections / rate + 0.5)
            after = await _answered(envoys)
            if all(a > b for a, b in zip(after, before, strict=True)):
                yield load
                return
        finally:
            await load.close()
    raise AssertionError(f"the connections of no load reached all of {n} Envoys")


async def _answered(envoys: list[Envoy]) -> list[int]:
    """Return the number of requests so far of each Envoy."""
    return [(await envoy.stats(f"^{ANSWERED}$")).get(ANSWERED, 0) for envoy in envoys]


def _read(cell: Cell, switches: list[tuple[str, Switch]], records: Records) -> None:
    """Add the answers that users got around each switch. Requests between two switches count for neither."""
    for i, (version, switch) in enumerate(switches):
        commit = switch.commit
        before = switches[i - 1][1].commit + switches[i - 1][1].ack if i else 0.0
        until = switches[i + 1][1].commit if i + 1 < len(switches) else float("inf")
        old = [r for r in records.requests if r.version == OTHER[version] and before <= r.start < until and r.head < until]
        cell.ack.append(switch.ack)
        cell.wall.append(switch.wall)
        cell.sent.append(max((r.start - commit for r in old if r.start >= commit), default=0.0))
        cell.answered.append(max((r.head - commit for r in old if r.head >= commit), default=0.0))
        cell.between.append(sum(r.start >= commit for r in old))
        cell.late.append(sum(r.start >= commit + switch.ack for r in old))


def _results(fleet: Fleet, quiet: Cell, loaded: Cell) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "serve": fleet.serve,
        "envoys": fleet.envoys,
        "models": MODELS,
        "start_seconds": round(fleet.start, 1),
    }
    figures |= {"envoy_pss_bytes": round(fleet.memory), "control_pss_bytes": round(fleet.control_memory)}
    figures |= {"requests": fleet.requests, "failed": fleet.failed, "fewest_requests_of_an_envoy": fleet.fewest}
    return {"environment": environment(), **figures, "without_load": quiet.json(), "under_load": loaded.json()}


def _page(fleet: Fleet, quiet: Cell, loaded: Cell) -> str:
    both = [("commit to the last ACK", "ack"), ("call to complete", "wall")]
    cpu = [("CPU of the control plane", "control_cpu"), ("CPU of each Envoy", "envoy_cpu")]
    last_old = [
        ("commit to the last request sent that the old version answered", "sent"),
        ("commit to the last answer by the old version", "answered"),
    ]

    def row(title: str, field_name: str) -> list[str]:
        return [title, *(Figure.of(v).text("s") if (v := getattr(cell, field_name)) else "" for cell in (quiet, loaded))]

    def counted(title: str, values: list[float]) -> list[str]:
        return [title, "", f"{statistics.median(values):g} (at most {max(values):g})"]

    rows = [row(title, name) for title, name in both + cpu + last_old]
    rows.append(counted("requests sent after the commit and answered by the old version", loaded.between))
    rows.append(counted("… sent after the last ACK", loaded.late))
    share = "what they share is split among them"
    facts = (
        f"All of them held the first revision {fleet.start:.0f} s after the first one was started, {AT_ONCE} at a time.\n"
        f"An Envoy has {digits(fleet.memory / 2**20)} MiB (the median; {share}), "
        f"the control plane {digits(fleet.control_memory / 2**20)} MiB.\n"
        f"Of {fleet.requests:,} requests {fleet.failed} failed; every Envoy answered {fleet.fewest:,} or more."
    )
    if fleet.serve:
        facts += f"\nTurnout was started with `{fleet.serve}`."
    about = __doc__.partition("\n\n")[2].strip() if __doc__ else ""
    title = f"A switch, {len(quiet.ack)} times each"
    parts = ["# Real Envoys", about, f"## {fleet.envoys} Envoys, {MODELS} models", facts]
    parts += [table([title, "without load", "under load"], rows), _NOTES]
    return "\n\n".join(part.strip() for part in parts)


_NOTES = f"""Medians; in brackets the spread (10th to 90th percentile; least to greatest of fewer than ten). Commit and last
ACK are by the control plane's clock, requests by the load's; it is one machine. An Envoy gets {RATE:g} requests a second on
average, and all of them at most {MOST:,.0f}. So the time at which the users of one Envoy moved is known to about
{1 / RATE:g} s, and the last time of many Envoys is known better. CPU is up to 30 ms after the ACK. An Envoy ACKs routes
before its worker has taken them over, so an answer by the old version after the last ACK is possible, and is counted. All run
on one machine: the Envoys take turns on its cores, and that is most of the time."""
