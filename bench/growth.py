"""Growth: the cost of a switch, a cold start and an idle proxy over N proxies, M models and worker processes.

Simulated proxies (`bench/fleet`), delta ADS, a connection each; each N and M has a server of its own. A line is fitted to
each figure over N, and an exponent over M: 0 is flat, 1 is proportional. From these follows how many proxies a machine
carries.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.measure import digits, environment, table
from bench.scale import Run, measure
from bench.sides import turnout

# The number of models while the number of proxies grows, and the reverse.
MODELS, PROXIES = 100, 500
# The number of proxies while the number of workers grows.
SHARED = 5000

# The tasks of a replica, and the resources that it may use for them.
SWITCH = 1.0  # seconds until the last proxy has a switch
RESTART = 30.0  # seconds until all proxies are in sync, after all have connected at once
BUSY = 0.7  # share of a core; the remaining share is for other work
GIB_PER_CORE = 2.0
CORES = (2, 8, 32)
FLEETS = (100_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: its unit, how to calculate it, and how to print it."""

    title: str
    unit: str
    of: Callable[[Run, int], float]  # from a run and its number of proxies
    scale: float = 1.0
    printed: str = ""


MEASURES = {
    "switch_cpu": Measure("CPU of a switch, all proxies", "s", lambda r, n: r.value("switch_cpu") * n, 1e3, "ms"),
    "received_p99": Measure("call to receipt, p99", "s", lambda r, _: r.value("received_p99"), 1e3, "ms"),
    "acked_max": Measure("call to the last ACK", "s", lambda r, _: r.value("acked_max"), 1e3, "ms"),
    "sync_cpu": Measure("CPU of a cold sync, all proxies", "s", lambda r, _: r.sync_cpu, 1, "s"),
    "sync_wall": Measure("cold sync until the last", "s", lambda r, _: r.sync_wall, 1, "s"),
    "memory": Measure("memory, all proxies", "B", lambda r, n: r.memory * n, 1 / 2**20, "MiB"),
    "bytes": Measure("bytes per proxy and switch", "B", lambda r, _: r.value("bytes"), 1, ""),
}


async def run(
    *,
    quick: bool,
    proxies: Sequence[int] = (10, 30, 100, 300, 1000, 3000, 10_000),
    models: Sequence[int] = (1, 10, 100, 1000, 5000),
    workers: Sequence[int] = (1, 2, 4),
    serve: str = "",
) -> tuple[dict[str, Any], str]:
    """Measure over N at 100 models, over M at 500 proxies, and over workers at 5,000 proxies.

    `serve` is further flags of `turnout serve`.
    """
    fixed_m, fixed_n, shared = MODELS, PROXIES, SHARED
    if quick:
        proxies, models, workers, fixed_m, fixed_n, shared = (10, 30, 100), (1, 10), (1,), 10, 50, 50
    over_n = {n: await _one(n, fixed_m, serve) for n in proxies}
    over_m = {m: await _one(fixed_n, m, serve) for m in models}
    split = {w: await _split(shared, fixed_m, w, serve) for w in workers}
    results: dict[str, Any] = {"environment": environment(), "serve": serve, "models": fixed_m, "proxies": fixed_n}
    results |= {"over_proxies": _kept(over_n), "over_models": _kept(over_m), "over_workers": _kept(split), "fits": {}}
    sections = []
    for axis, other, by_size in (("N", f"M = {fixed_m}", over_n), ("M", f"N = {fixed_n}", over_m)):
        rows = []
        for name, measure_ in MEASURES.items():
            fit = Fit.of({x: values[name] for x, values in by_size.items()})
            results["fits"][f"{name} over {axis}"] = fit.json()
            text = fit.text(measure_) if axis == "N" else f"exponent {fit.exponent:.2f}"
            cells = [digits(values[name] * measure_.scale) for values in by_size.values()]
            rows.append([f"{measure_.title}{', ' if measure_.printed else ''}{measure_.printed}", *cells, text])
        sections += [f"## Over {axis}, {other}", table([axis, *(f"{x:,}" for x in by_size), "fitted"], rows)]
    rows = [[title, *(digits(v[metric] * 1e6) for v in split.values())] for metric, title in _SPLIT.items()]
    header = ["CPU per proxy, µs", *(f"{w} worker{'s' * (w > 1)}" for w in split)]
    sections += [f"## Over workers, N = {shared}, M = {fixed_m}", table(header, rows)]
    memory = Fit.of({n: values["memory"] for n, values in over_n.items()}).slope
    highest = {metric: max(values[metric] for values in split.values()) for metric in _SPLIT}
    results["sizing"] = [asdict(size(cores, highest, memory)) for cores in CORES]
    sections += ["## What a replica carries", _sizes(highest, memory)]
    parts = ["# Growth", (__doc__ or "").partition("\n\n")[2].strip(), *sections, _NOTES]
    return results, "\n\n".join(part.strip() for part in parts)


async def _one(n: int, m: int, serve: str) -> dict[str, float]:
    done = await measure(turnout(serve), n, m)
    values = {name: measure_.of(done, n) for name, measure_ in MEASURES.items()}
    print(f"N={n} M={m}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()), flush=True)
    return values


_SPLIT = {
    "switch_main": "a switch: the main process",
    "switch_workers": "a switch: the workers",
    "sync_main": "a cold sync: the main process",
    "sync_workers": "a cold sync: the workers",
}


async def _split(n: int, m: int, workers: int, serve: str) -> dict[str, float]:
    """Return the seconds of CPU per proxy of the main process and of the workers."""
    done = await measure(turnout(f"{serve} --workers {workers}"), n, m)
    main, sync = done.value("main_cpu"), done.sync_main_cpu / n
    values = {
        "switch_main": main,
        "switch_workers": done.value("switch_cpu") - main,
        "sync_main": sync,
        "sync_workers": done.sync_cpu / n - sync,
    }
    print(f"N={n} M={m} workers={workers}: " + ", ".join(f"{k} {v * 1e6:.1f} µs" for k, v in values.items()), flush=True)
    return values


@dataclass(frozen=True, slots=True)
class Size:
    """The number of proxies that each limit of a replica allows. The least of these is its size, `carries`."""

    cores: int
    switch_workers: int
    switch_main: int
    restart_workers: int
    restart_main: int
    memory: int

    @property
    def carries(self) -> int:
        """Return the number of proxies, rounded down to two digits."""
        least = min(self.switch_workers, self.switch_main, self.restart_workers, self.restart_main, self.memory)
        step = int(10 ** max(0, len(str(least)) - 2))
        return least // step * step


def size(cores: int, cpu: Mapping[str, float], memory: float) -> Size:
    """Return the size of a replica. One core is for the main process, each other for a worker; `memory` is bytes per proxy."""

    def within(seconds: float, cores: int, metric: str) -> int:
        return int(BUSY * seconds * cores / max(cpu[metric], 1e-9))

    return Size(
        cores,
        switch_workers=within(SWITCH, cores - 1, "switch_workers"),
        switch_main=within(SWITCH, 1, "switch_main"),
        restart_workers=within(RESTART, cores - 1, "sync_workers"),
        restart_main=within(RESTART, 1, "sync_main"),
        memory=int(cores * GIB_PER_CORE * 2**30 * BUSY / max(memory, 1)),
    )


def _sizes(cpu: Mapping[str, float], memory: float) -> str:
    sizes = [size(cores, cpu, memory) for cores in CORES]
    limits = {
        f"workers: a switch within {SWITCH:.0f} s": "switch_workers",
        f"main process: a switch within {SWITCH:.0f} s": "switch_main",
        f"workers: all in sync within {RESTART:.0f} s": "restart_workers",
        f"main process: all in sync within {RESTART:.0f} s": "restart_main",
        f"memory of {GIB_PER_CORE:.0f} GiB a core": "memory",
        "**carries**": "carries",
    }
    rows = [[title, *(f"{getattr(s, metric):,}" for s in sizes)] for title, metric in limits.items()]
    for fleet in FLEETS:
        # One more than is needed, so that one can fail.
        rows.append([f"replicas for {fleet:,} proxies, one to spare", *(f"{-(-fleet // s.carries) + 1:,}" for s in sizes)])
    text = (
        f"Calculated, not measured: proxies ≤ {BUSY} · seconds · cores / CPU per proxy, with one core for the main process "
        f"and each other for a worker, each figure from the most expensive column above; "
        f"proxies ≤ {BUSY} · memory / {memory / 1024:.0f} KiB."
    )
    return f"{text}\n\n{table(['limit', *(f'{s.cores} cores' for s in sizes)], rows)}"


def _kept(by_size: dict[int, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {str(x): {name: float(f"{value:.4g}") for name, value in values.items()} for x, values in by_size.items()}


@dataclass(frozen=True, slots=True)
class Fit:
    """A line through points, y = fixed + slope·x, fitted by relative errors; and the exponent of a power of x."""

    fixed: float
    slope: float
    exponent: float

    @staticmethod
    def of(points: dict[int, float]) -> Fit:
        """Fit the points above zero. Others are noise."""
        points = {x: y for x, y in points.items() if y > 0}
        if not points:
            return Fit(0, 0, 0)
        weights = {x: 1 / y**2 for x, y in points.items()}
        total = sum(weights.values())
        mean_x = sum(w * x for x, w in weights.items()) / total
        mean_y = sum(w * points[x] for x, w in weights.items()) / total
        spread = sum(w * (x - mean_x) ** 2 for x, w in weights.items())
        slope = sum(w * (x - mean_x) * (points[x] - mean_y) for x, w in weights.items()) / spread if spread else 0.0
        logs = [(math.log(x), math.log(y)) for x, y in points.items()]
        exponent = statistics.linear_regression(*zip(*logs, strict=True)).slope if len(logs) > 1 else 0.0
        return Fit(mean_y - slope * mean_x, slope, exponent)

    def json(self) -> dict[str, float]:
        """Return the figures in the form of the results file."""
        return {"fixed": float(f"{self.fixed:.4g}"), "slope": float(f"{self.slope:.4g}"), "exponent": round(self.exponent, 3)}

    def text(self, metric: Measure) -> str:
        """Return text like `5.1 ms + 48 µs · N`."""
        if abs(self.exponent) < 0.05:
            return "flat"
        steps = (("", 1.0), ("m", 1e3), ("µ", 1e6)) if metric.unit == "s" else (("Ki", 2.0**-10), ("", 1.0))
        prefix, scale = next((s for s in steps if abs(self.slope) * s[1] >= 1), steps[-1])
        fixed = f"{digits(self.fixed * metric.scale)} {metric.printed or metric.unit}"
        return f"{fixed} + {digits(self.slope * scale)} {prefix}{metric.unit} · N"


_NOTES = """One run each; a switch's figures are medians of five. Lines are fitted by relative errors, so that few
proxies count as much as many. The fixed cost of a switch is the operator's call: the write, the compiler, the answer.
Simulator and server share the machine. Memory of a few proxies can't be told from noise."""
