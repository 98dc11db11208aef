"""The two transports of xDS side by side, on the same cores: our own HTTP/2 on the event loop, and gRPC's own server.

N simulated proxies (`bench/fleet`) with a connection each and M models, delta ADS: `turnout serve --xds-transport http2` and
`turnout serve --xds-transport grpc` in turn, A B A B, each time from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.measure import Figure, digits, environment, table
from bench.scale import Run, measure
from bench.sides import turnout
from controlplane.config import XDS_TRANSPORTS

# The figures of the page: the metric, its title, and the factor to its unit.
_FIGURES = (
    ("switch_cpu", "CPU per proxy and switch, µs", 1e6),
    ("received_p99", "p99 from the call to receipt, ms", 1e3),
    ("sync_cpu", "CPU of a cold sync of all, s", 1.0),
    ("memory", "memory per idle proxy, KiB", 1 / 1024),
)


async def run(
    *, quick: bool, proxies: Sequence[int] = (1000,), models: Sequence[int] = (10, 1000), rounds: int = 3
) -> tuple[dict[str, Any], str]:
    """Measure the two transports in turn, for each N and M."""
    if quick:
        proxies, models, rounds = (100,), (10,), 1
    cells: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    for n in proxies:
        for m in models:
            runs: dict[str, list[Run]] = {transport: [] for transport in XDS_TRANSPORTS}
            for _ in range(rounds):
                for transport in XDS_TRANSPORTS:
                    runs[transport].append(await measure(turnout(f"--xds-transport {transport}"), n, m))
            figures = {
                s: {metric: Figure.of(r.value(metric) for r in runs[s]) for metric, _, _ in _FIGURES} for s in XDS_TRANSPORTS
            }
            cells.append(
                {
                    "proxies": n,
                    "models": m,
                    "transports": {s: {w: f.json() for w, f in of.items()} for s, of in figures.items()},
                }
            )
            for metric, title, factor in _FIGURES:
                http2, grpc = (figures[s][metric].median for s in XDS_TRANSPORTS)
                rows.append([str(n), str(m), title, digits(http2 * factor), digits(grpc * factor), digits(http2 / grpc)])
    page = table(["N", "M", "", *XDS_TRANSPORTS, "ratio"], rows)
    return {"environment": environment(), "cells": cells}, f"## The transports of xDS\n\n{page}\n"
