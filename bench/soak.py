"""Soak: switches, reconnects and NACKs for an hour. Memory, latency, CPU and open files must not grow.

A simulated fleet (`bench/fleet`), delta ADS, a connection each. Most proxies behave well. A tenth reconnects at once every ten
seconds, in turn as Envoys that still hold their configuration and as new ones. A twentieth NACKs every change. There is a
switch a second, one model after the other.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.lines import cpu_seconds, descriptors, many_files, pss_bytes, simulator
from bench.measure import Figure, digits, environment, table
from bench.scale import synced
from bench.sides import turnout

INTERVAL = 1.0  # seconds from one switch to the next
CHURN = 10  # switches between two reconnects
GOOD, COMING, REFUSING = "good", "coming", "refusing"


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one switch, and of the server after it."""

    at: float  # seconds since the start
    p50: float  # seconds from the call to receipt, of proxies that behave well
    p99: float
    cpu: float  # seconds of the server's CPU since the previous sample
    memory: int  # bytes
    files: int


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure, and the greatest allowed ratio of the last quarter to the second."""

    title: str
    unit: str
    of: Callable[[Sample], float]
    scale: float
    most: float  # the greatest allowed ratio


MEASURES = (
    Measure("call to receipt, p50", "ms", lambda s: s.p50, 1e3, 1.5),
    Measure("call to receipt, p99", "ms", lambda s: s.p99, 1e3, 2.0),
    Measure("CPU between two switches", "ms", lambda s: s.cpu, 1e3, 1.3),
    Measure("memory", "MiB", lambda s: s.memory, 1 / 2**20, 1.1),
    Measure("open files", "", lambda s: s.files, 1, 1.02),
)


async def run(
    *, quick: bool, proxies: Sequence[int] = (1000,), models: Sequence[int] = (100,), minutes: float = 60, serve: str = ""
) -> tuple[dict[str, Any], str]:
    """Measure one run. It fails if `grown` lists figures that grew too much. `serve` is further flags for the server."""
    (n, *_), (m, *_) = proxies, models
    if quick:
        n, m, minutes = 100, 10, 0.5
    samples, errors = await _samples(n, m, minutes * 60, serve)
    quarters = [samples[len(samples) * i // 4 : len(samples) * (i + 1) // 4] for i in range(4)]
    rows, grown = [], []
    for measure in MEASURES:
        figures = [Figure.of(measure.of(s) * measure.scale for s in part) for part in quarters]
        ratio = figures[3].median / figures[1].median
        rows.append([f"{measure.title} {measure.unit}".strip(), *(_figure_text(f) for f in figures), f"{ratio:.3f}"])
        if ratio > measure.most and not quick:
            grown.append(f"{measure.title} grew by a factor of {ratio:.2f}; {measure.most} is allowed")
    results = {"environment": environment(), "serve": serve, "proxies": n, "models": m, "minutes": minutes, "grown": grown}
    results |= {"errors": errors, "samples": [asdict(s) for s in samples[:: max(1, len(samples) // 300)]]}
    head = f"{n:,} proxies, {m:,} models, {digits(minutes)} minutes, {len(samples):,} switches."
    verdict = "Not flat: " + "; ".join(grown) + "." if grown else "Flat: nothing grew by more than is allowed."
    if quick:
        verdict = "Too short to judge."
    text = "Connections that broke unexpectedly: " + (str(errors) if errors else "none") + "."
    header = ["", "1st quarter", "2nd", "3rd", "4th", "4th : 2nd"]
    parts = ["# Soak", (__doc__ or "").partition("\n\n")[2].strip(), head, table(header, rows), verdict, text]
    return results, "\n\n".join(part.strip() for part in parts)


def _figure_text(figure: Figure) -> str:
    return f"{digits(figure.median)} ({digits(figure.low)}–{digits(figure.high)})"


async def _samples(n: int, m: int, seconds: float, serve: str) -> tuple[list[Sample], dict[str, int]]:
    many_files(n + 1000)
    coming, refusing = max(1, n // 10), max(1, n // 20)
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as scratch:
        directory = Path(scratch)
        async with turnout(serve)(m, directory) as side, simulator(f"127.0.0.1:{side.port}", directory) as fleet:
            await fleet.ask("open", n=n - coming - refusing, group=GOOD)
            await fleet.ask("open", n=coming, group=COMING)
            await fleet.ask("open", n=refusing, group=REFUSING, nack=True)
            for group in (GOOD, COMING, REFUSING):
                await synced(fleet, group=group, timeout=600)
            samples: list[Sample] = []
            start, spent, i = time.monotonic(), cpu_seconds(side.pid), 0
            while time.monotonic() < start + seconds:
                due = time.monotonic() + INTERVAL
                if i % CHURN == CHURN // 2:
                    await fleet.ask("reopen", group=COMING, keep=i // CHURN % 2 == 0)
                move = next(side.moves)
                await fleet.ask("watch", name=move.name, contains=move.contains)
                called = time.monotonic_ns()
                await move.call()
                answer = await fleet.ask("result", from_ns=called, group=GOOD)
                assert answer["ok"], (
                    f"{answer['received']['n']} of {answer['n']} proxies have a switch; errors: {answer['errors']}"
                )
                if i % CHURN == CHURN - 1:
                    await synced(fleet, group=COMING)
                if time.monotonic() < due:
                    await asyncio.sleep(due - time.monotonic())
                now, i = cpu_seconds(side.pid), i + 1
                times = answer["received"]["p50"], answer["received"]["p99"], now - spent
                spent = now
                memory, files = pss_bytes(side.pid), descriptors(side.pid)
                samples.append(Sample(time.monotonic() - start, *times, memory, files))
                if i % 60 == 0:
                    last = samples[-1]
                    text = f"p99 {last.p99 * 1e3:.0f} ms, {last.memory / 2**20:.0f} MiB, {last.files} files"
                    print(f"{last.at / 60:.0f} min: {text}", flush=True)
            return samples, (await fleet.ask("stats"))["errors"]
