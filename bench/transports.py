"""The two transports of xDS side by side, on the same cores: our own HTTP/2 on the event loop, and gRPC's own server.

N simulated proxies (`bench/fleet`) with a connection each and M models, delta ADS: `turnout serve --xds-transport http2` and
`turnout serve --xds-transport grpc` in turn, A B A B, each time anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.measure import Figure, digits, environment, table
from bench.scale import Run, measure
from bench.sides import turnout
from controlplane.config import XDS_TRANSPORTS

# What is shown, in which unit, and how many of it are one of what is measured.
_SHOWN = (
    ("switch_cpu", "CPU per proxy and switch, µs", 1e6),
    ("received_p99", "p99 from the call to receipt, ms", 1e3),
    ("sync_cpu", "CPU of a cold sync of all, s", 1.0),
    ("memory", "memory per idle proxy, KiB", 1 / 1024),
)


async def run(
    *, quick: bool, proxies: Sequence[int] = (1000,), models: Sequence[int] = (10, 1000), rounds: int = 3
) -> tuple[dict[str, Any], str]:
    """Both in turn, for each N and M."""
    if quick:
        proxies, models, rounds = (100,), (10,), 1
    found: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    for n in proxies:
        for m in models:
            runs: dict[str, list[Run]] = {transport: [] for transport in XDS_TRANSPORTS}
            for _ in range(rounds):
                for transport in XDS_TRANSPORTS:
                    runs[transport].append(await measure(turnout(f"--xds-transport {transport}"), n, m))
            figures = {s: {what: Figure.of(r.value(what) for r in runs[s]) for what, _, _ in _SHOWN} for s in XDS_TRANSPORTS}
            found.append(
                {
                    "proxies": n,
                    "models": m,
                    "transports": {s: {w: f.json() for w, f in of.items()} for s, of in figures.items()},
                }
            )
            for what, title, unit in _SHOWN:
                http2, grpc = (figures[s][what].median for s in XDS_TRANSPORTS)
                rows.append([str(n), str(m), title, digits(http2 * unit), digits(grpc * unit), digits(http2 / grpc)])
    page = table(["N", "M", "", *XDS_TRANSPORTS, "ratio"], rows)
    return {"environment": environment(), "cells": found}, f"## The transports of xDS\n\n{page}\n"
