"""Kinds of gateways: requests per second and the Envoy's CPU for each, by path, by header and by body.

Two Envoys with the same three gateways: one has a lone model, the other 2,000. The same requests, with a body of 2 KB as a
chat has, go in turn to every gateway of both, to the last model. The Envoys have one worker thread each.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack, closing
from typing import Any

from bench.load import Clients
from bench.measure import Figure, digits, environment, table
from bench.rig import model_servers
from controlplane.compiler import Compiler
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.ports import free_port
from controlplane.domain import BodyRouting, Endpoint, Gateway, HeaderRouting, Model, PathRouting, Routing, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.snapshot import Audience

ROUTINGS: Mapping[str, Routing] = {"path": PathRouting(), "header": HeaderRouting("x-model"), "body": BodyRouting()}
MANY = 2_000


async def run(*, quick: bool) -> tuple[dict[str, Any], str]:
    """Measure, and return the results and a page about them."""
    sizes = (1, 20 if quick else MANY)
    rounds, each = (3, 0.2) if quick else (25, 0.4)
    # By kind and number of models.
    rates: dict[tuple[str, int], list[float]] = {(kind, m): [] for kind in ROUTINGS for m in sizes}
    cpu: dict[tuple[str, int], list[float]] = {key: [] for key in rates}
    async with model_servers() as servers, AsyncExitStack() as stack:
        envoys: dict[int, tuple[Envoy, Mapping[str, Clients], str]] = {}
        for m in sizes:
            state = _state(m, servers["blue"])
            snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience(tuple(sorted(state.gateways))), 1)
            envoy = await stack.enter_async_context(Envoy(static_bootstrap(snapshot)))
            await envoy.ready()
            clients: Mapping[str, Clients] = {
                k: stack.enter_context(closing(Clients(g.port, 64))) for k, g in state.gateways.items()
            }
            envoys[m] = envoy, clients, f"model-{m:04}"
        for round_ in range(rounds + 1):
            for kind in ROUTINGS:
                for m, (envoy, clients, model) in envoys.items():
                    before = envoy.cpu_seconds()
                    load = await asyncio.to_thread(clients[kind].send, _request(kind, model), each)
                    used = envoy.cpu_seconds() - before
                    assert not load.failed, f"{load.failed} of {load.requests} requests failed"
                    if round_:  # the first warms up
                        rates[kind, m].append(load.rate)
                        cpu[kind, m].append(used / load.requests)
    return _results(rates, cpu), _page(rates, cpu, sizes)


def _state(models: int, port: int) -> State:
    """Return a state with a gateway of each kind and this many models."""
    gateways = {kind: Gateway(kind, free_port(), "127.0.0.1", routing) for kind, routing in ROUTINGS.items()}
    version = Version("blue", (Endpoint("127.0.0.1", port),))
    names = [f"model-{i:04}" for i in range(1, models + 1)]
    return State(gateways, {n: Model(n, tuple(gateways), (version,), {"blue": 10_000}) for n in names})


def _request(kind: str, model: str) -> bytes:
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 2_000}], "model": model}).encode()
    path = f"/v2/models/{model}/infer" if kind == "path" else "/v1/chat/completions"
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\nx-model: {model}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _results(rates: Mapping[tuple[str, int], list[float]], cpu: Mapping[tuple[str, int], list[float]]) -> dict[str, Any]:
    cells = [
        {
            "gateway": kind,
            "models": m,
            "requests_per_second": Figure.of(values).json(),
            "envoy_cpu_seconds_per_request": Figure.of(cpu[kind, m]).json(),
        }
        for (kind, m), values in rates.items()
    ]
    return {"environment": environment(), "cells": cells}


def _page(
    rates: Mapping[tuple[str, int], list[float]], cpu: Mapping[tuple[str, int], list[float]], sizes: tuple[int, int]
) -> str:
    one, many = sizes
    header = ["gateway"]
    header += [f"requests/s, {m:,} model{'s' * (m > 1)}" for m in sizes] + ["ratio"]
    header += [f"CPU µs per request, {m:,} model{'s' * (m > 1)}" for m in sizes] + ["to the path gateway"]
    rows = []
    for kind in ROUTINGS:
        rate = [Figure.of(rates[kind, m]) for m in sizes]
        used = [Figure.of(cpu[kind, m]) for m in sizes]
        ratios = Figure.of(b / a for a, b in zip(rates[kind, one], rates[kind, many], strict=True))
        to_path = Figure.of(a / b for a, b in zip(cpu[kind, many], cpu["path", many], strict=True))
        row = [kind, *(digits(f.median) for f in rate), f"{ratios.median:.2f} ({ratios.low:.2f}–{ratios.high:.2f})"]
        rows.append([*row, *(digits(f.median * 1e6) for f in used), f"{to_path.median:.2f}"])
    doc = (__doc__ or "").partition("\n\n")[2].strip()
    return "\n\n".join(["# Kinds of gateways", doc, table(header, rows), _NOTES])


_NOTES = """Medians; the ratio is that of requests per second to the last of many models and to a lone one, round by round,
with the 10th and 90th percentile."""
