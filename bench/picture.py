"""Pictures of the results: time against users, bytes and CPU against models; and each figure of a fleet as it grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TRACK, LOOP, BATCH = "#0b6e4f", "#c1121f", "#e09f3e"
_USERS = {
    "loop, SQLite": (LOOP, "-", "loop, SQLite"),
    "loop, in memory": (LOOP, "--", "loop, in memory"),
    "batches, SQLite": (BATCH, "-", "in batches, SQLite"),
    "batches, in memory": (BATCH, "--", "in batches, in memory"),
    "Turnout": (TRACK, "-", "Turnout, to the ACK of a real Envoy"),
}
_MODELS = {"one flat table": (LOOP, "one flat route table"), "Turnout, delta ADS": (TRACK, "Turnout")}


def draw(directory: Path) -> None:
    """Draw the pictures of the results in a directory, and save them there."""
    _flat(directory)
    _growth(directory)


def _flat(directory: Path) -> None:
    """Draw `flat.svg` from `users.json` and `models.json`; do nothing if one of them is missing."""
    files = [directory / "users.json", directory / "models.json"]
    if not all(f.exists() for f in files):
        return
    users, models = (json.loads(f.read_text()) for f in files)

    pyplot = _pyplot()
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(11, 3.6), width_ratios=(1.5, 1, 1), layout="constrained")
    for name, (color, style, label) in _USERS.items():
        by_size = users["methods"][name]["users"]
        metric = "ack_seconds" if name == "Turnout" else "wall_seconds"
        _line(left, by_size, metric, color, style, label)
    _axes(left, "Moving every user to green", "users", "time", "s")
    for axes, metric, title, unit in (
        (middle, "bytes_sent", "Switching one model: sent to an Envoy", "B"),
        (right, "envoy_cpu_seconds", "Switching one model: an Envoy's CPU", "s"),
    ):
        for name, (color, label) in _MODELS.items():
            _line(axes, models["sides"][name]["models"], metric, color, "-", label)
        _axes(axes, title, "models", "", unit)
    _save(figure, directory / "flat.svg")


_GROWTH = {
    "switch_cpu": ("CPU of one switch", "s"),
    "received_p99": ("Call to receipt, p99", "s"),
    "sync_cpu": ("CPU of a cold sync", "s"),
    "memory": ("Memory, all proxies", "B"),
    "bytes": ("Sent to a proxy by a switch", "B"),
}


def _growth(directory: Path) -> None:
    """Draw `growth.svg` from `growth.json`, over proxies above and over models below; do nothing if it is missing."""
    file = directory / "growth.json"
    if not file.exists():
        return
    results = json.loads(file.read_text())
    figure, rows = _pyplot().subplots(2, len(_GROWTH), figsize=(14, 6), layout="constrained")
    for row, key, x, fixed in (
        (rows[0], "over_proxies", "proxies", f"{results['models']} models"),
        (rows[1], "over_models", "models", f"{results['proxies']} proxies"),
    ):
        for axes, (metric, (title, unit)) in zip(row, _GROWTH.items(), strict=True):
            points = [(int(n), values[metric]) for n, values in results[key].items() if values[metric] > 0]
            if not points:
                axes.set_axis_off()
                continue
            across, up = [n for n, _ in points], [value for _, value in points]
            axes.plot(across, up, color=TRACK, marker="o", markersize=3, linewidth=1.6, label=fixed)
            _axes(axes, title, x, "", unit)
    _save(figure, directory / "growth.svg")


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("svg")
    # Text stays text, and the same figures give the same bytes.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "turnout", "font.size": 9, "font.family": "sans-serif"})
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, file: Path) -> None:
    figure.savefig(file, metadata={"Date": None}, facecolor="white")
    _pyplot().close(figure)


def _line(axes: Any, by_size: dict[str, Any], metric: str, color: str, style: str, label: str) -> None:
    sizes = [int(n) for n in by_size]
    figures = [by_size[str(n)][metric] for n in sizes]
    axes.plot(sizes, [f["median"] for f in figures], style, color=color, label=label, marker="o", markersize=3, linewidth=1.6)
    axes.fill_between(sizes, [f["low"] for f in figures], [f["high"] for f in figures], color=color, alpha=0.12, linewidth=0)


def _axes(axes: Any, title: str, x: str, y: str, unit: str) -> None:
    from matplotlib.ticker import EngFormatter, NullFormatter

    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=10)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 2, high * 4)  # room for the legend
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_formatter(EngFormatter(unit))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
