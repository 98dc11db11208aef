"""Growth: what a switch, a cold start and an idle proxy cost Turnout, over N proxies and over M models.

Simulated proxies (`bench/fleet`), delta ADS, a connection each; each N and M on a server of its own. A line is fitted to each
figure over N, and an exponent over M: 0 is flat, 1 is in proportion.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.measure import digits, environment, table
from bench.scale import Run, measure
from bench.sides import turnout

# What is fixed while the other grows.
MODELS, PROXIES = 100, 500


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: in which unit it is kept, how it is worked out, and how it is printed."""

    title: str
    unit: str
    of: Callable[[Run, int], float]  # from a run with so many proxies
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
    serve: str = "",
) -> tuple[dict[str, Any], str]:
    """Measures over N at 100 models, then over M at 500 proxies; `serve` is further flags for `turnout serve`."""
    fixed_m, fixed_n = MODELS, PROXIES
    if quick:
        proxies, models, fixed_m, fixed_n = (10, 30, 100), (1, 10), 10, 50
    over_n = {n: await _one(n, fixed_m, serve) for n in proxies}
    over_m = {m: await _one(fixed_n, m, serve) for m in models}
    results: dict[str, Any] = {"environment": environment(), "serve": serve, "models": fixed_m, "proxies": fixed_n}
    results |= {"over_proxies": _kept(over_n), "over_models": _kept(over_m), "fits": {}}
    sections = []
    for axis, other, found in (("N", f"M = {fixed_m}", over_n), ("M", f"N = {fixed_n}", over_m)):
        rows = []
        for name, measure_ in MEASURES.items():
            fit = Fit.of({x: values[name] for x, values in found.items()})
            results["fits"][f"{name} over {axis}"] = fit.json()
            said = fit.text(measure_) if axis == "N" else f"exponent {fit.exponent:.2f}"
            cells = [digits(values[name] * measure_.scale) for values in found.values()]
            rows.append([f"{measure_.title}{', ' if measure_.printed else ''}{measure_.printed}", *cells, said])
        sections += [f"## Over {axis}, {other}", table([axis, *(f"{x:,}" for x in found), "fitted"], rows)]
    parts = ["# Growth", (__doc__ or "").partition("\n\n")[2].strip(), *sections, _NOTES]
    return results, "\n\n".join(part.strip() for part in parts)


async def _one(n: int, m: int, serve: str) -> dict[str, float]:
    done = await measure(turnout(serve), n, m)
    found = {name: measure_.of(done, n) for name, measure_ in MEASURES.items()}
    print(f"N={n} M={m}: " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()), flush=True)
    return found


def _kept(found: dict[int, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {str(x): {name: float(f"{value:.4g}") for name, value in values.items()} for x, values in found.items()}


@dataclass(frozen=True, slots=True)
class Fit:
    """A line through points, y = fixed + slope·x, that weighs relative errors; and the exponent of a power of x."""

    fixed: float
    slope: float
    exponent: float

    @staticmethod
    def of(points: dict[int, float]) -> Fit:
        """Of the points above zero: less than that is noise."""
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
        """As it is kept."""
        return {"fixed": float(f"{self.fixed:.4g}"), "slope": float(f"{self.slope:.4g}"), "exponent": round(self.exponent, 3)}

    def text(self, what: Measure) -> str:
        """For people: `5.1 ms + 48 µs · N`."""
        if abs(self.exponent) < 0.05:
            return "flat"
        steps = (("", 1.0), ("m", 1e3), ("µ", 1e6)) if what.unit == "s" else (("Ki", 2.0**-10), ("", 1.0))
        prefix, scale = next((s for s in steps if abs(self.slope) * s[1] >= 1), steps[-1])
        fixed = f"{digits(self.fixed * what.scale)} {what.printed or what.unit}"
        return f"{fixed} + {digits(self.slope * scale)} {prefix}{what.unit} · N"


_NOTES = """One run each; a switch's figures are medians of five. A line weighs relative errors, so that few proxies count as
much as many. What is fixed of a switch is the operator's call itself: the write, the compiler, the answer. Simulator and
server share the machine. Memory of a few proxies is below what can be told from noise."""
