"""An upgrade of the control plane under load: the one of another checkout, an older one, ends, and this checkout's takes over.

The older control plane applies models, and Envoys serve them. Clients with kept connections call a model over HTTP/1.1 and
HTTP/2, and some answers stream for seconds. Then the older one ends, and this one starts with its data. The Envoys connect to
it, and get what it compiles otherwise: listeners, which drain their connections, and clusters. At the end this one moves the
model to its other version. No request may fail.

The clients do what clients must when a server ends a connection: after `connection: close` they send nothing more on it, and
after GOAWAY no new stream.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.measure import environment, table
from controlplane.demo.envoy import Envoy, envoy_binary
from controlplane.demo.lean import LeanServer
from controlplane.demo.load import Group, Load, Records
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.demo.process import Process

MODELS = 30
DRAIN = 15  # seconds in which an Envoy drains the connections of a replaced listener
RATE = 150.0  # requests a second of a group
STREAM = 2  # seconds of a streamed answer
_COUNTED = "(listener_manager|cluster_manager).*_modified|cx_drain_close"


async def run(*, quick: bool, checkout: str = "") -> tuple[dict[str, Any], str]:
    """Upgrade from the checkout in a folder to this one. Errors: AssertionError if a request fails."""
    turnout = older_command(Path(checkout))
    binaries = {"newest": envoy_binary()} | ({} if quick else _older())
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(LeanServer())
        plane = ControlPlane()
        stack.push_async_callback(plane.close)
        older = Process("the older turnout serve", _serve(turnout, plane), plane.directory / "older.log")
        await older.start()
        stack.push_async_callback(older.stop)
        port = {name: free_port() for name in binaries}
        await _apply(turnout, plane, _manifest(port, server.ports))
        envoys = []
        for name, binary in binaries.items():
            bootstrap = json.loads(await _output(turnout, *_bootstrap(plane, name)))
            envoy = Envoy(bootstrap, binary=binary, options=["--drain-time-s", str(DRAIN)])
            envoys.append(await stack.enter_async_context(envoy))
            await envoy.listens(port[name])
        load = Load([group for name in binaries for group in _groups(name, port[name], quick)], users=1_000_000)
        stack.push_async_callback(load.close)
        await load.start()
        await asyncio.sleep(3)
        before = [await envoy.stats(_COUNTED) for envoy in envoys]
        await older.stop()
        await asyncio.sleep(1)
        start = time.monotonic()
        await plane.start()
        await plane.held(1, nodes=len(envoys), seconds=60)
        upgrade = time.monotonic() - start
        await asyncio.sleep(DRAIN + 5)
        after = [await envoy.stats(_COUNTED) for envoy in envoys]
        switch = time.time()
        await plane.held(await plane.split("model-0", {"green": 10_000}), nodes=len(envoys))
        await asyncio.sleep(STREAM + 1)
        records = await load.stop()
    changes = changes_of(list(binaries), before, after)
    assert records.by_version(since=switch + 1).keys() == {"green"}, "a request after the switch was answered by blue"
    groups = _by_group(records)
    results = {"environment": environment(), "seconds": round(upgrade, 2), "groups": groups, "changes": changes}
    page = page_of(groups, changes, upgrade)
    assert not records.failed, f"{records.failed} of {len(records.requests)} requests failed: {groups}, {records.failures[:5]}"
    return results, page


def older_command(checkout: Path) -> Path:
    """Return the `turnout` of a checkout. Errors: RuntimeError if it has no virtual environment."""
    command = checkout.resolve() / ".venv" / "bin" / "turnout"
    if not command.exists():
        raise RuntimeError(f"{command} does not exist: set up that checkout first (make setup)")
    return command


def _older() -> dict[str, str]:
    """Return the older Envoys that are installed for the test matrix, by version."""
    found = sorted((Path(sys.prefix) / "envoys").glob("*/envoy/_bin/envoy"))
    return {path.parents[2].name: str(path) for path in found}


def _serve(turnout: Path, plane: ControlPlane) -> Sequence[str]:
    xds = f"127.0.0.1:{plane.xds_port}"
    return [str(turnout), "serve", "--data", str(plane.data), "--api", plane.api, "--xds", xds, "--log-format", "json"]


def _bootstrap(plane: ControlPlane, name: str) -> Sequence[str]:
    xds = f"127.0.0.1:{plane.xds_port}"
    return ["bootstrap", name, "--cluster", name, "--xds", xds, "--admin-port", "0", "-o", "json"]


async def _output(turnout: Path, *arguments: str) -> str:
    environ = {**os.environ, "NO_COLOR": "1"}
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(str(turnout), *arguments, stdout=pipe, stderr=pipe, env=environ)
    out, error = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"{turnout} {' '.join(arguments)}: {error.decode().strip()}")
    return out.decode()


async def _apply(turnout: Path, plane: ControlPlane, manifest: dict[str, Any]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(manifest, file)
        file.flush()
        await _output(turnout, "--api", plane.api, "--retry-for", "20", "apply", "-f", file.name)


def _manifest(port: dict[str, int], upstream: dict[str, int]) -> dict[str, Any]:
    """Return a gateway for each Envoy, and the models, which all of them serve."""
    gateways = [
        {"name": f"edge-{i}", "address": "127.0.0.1", "port": port[name], "nodes": {"clusters": [name]}}
        for i, name in enumerate(port)
    ]
    versions = [{"name": n, "endpoints": [{"host": "127.0.0.1", "port": p}]} for n, p in upstream.items()]
    models = [
        {"name": f"model-{i}", "gateways": [g["name"] for g in gateways], "versions": versions, "split": {"blue": 10_000}}
        for i in range(MODELS)
    ]
    return {"gateways": gateways, "models": models}


def _groups(name: str, port: int, quick: bool) -> list[Group]:
    path, rate = "/v2/models/model-0/infer", RATE / 3 if quick else RATE
    streamed = f"{path}?seconds={STREAM}"
    here: dict[str, Any] = {"host": "127.0.0.1", "port": port}
    return [
        Group(path=path, name=f"{name}, HTTP/1.1", rate=rate, **here),
        Group(path=path, name=f"{name}, HTTP/2", rate=rate, http2=True, connections=4, slots=8, **here),
        Group(path=streamed, name=f"{name}, HTTP/1.1 streams", connections=4, **here),
        Group(path=streamed, name=f"{name}, HTTP/2 streams", http2=True, connections=2, slots=4, **here),
    ]


def _by_group(records: Records) -> dict[str, dict[str, int]]:
    total = Counter(r.group for r in records.requests)
    failed = Counter(r.group for r in records.requests if r.version is None)
    return {group: {"requests": count, "failed": failed[group]} for group, count in sorted(total.items())}


def changes_of(names: Sequence[str], before: Sequence[dict[str, int]], after: Sequence[dict[str, int]]) -> dict[str, Any]:
    """Return what the upgrade changed in each Envoy: listeners, clusters, and connections that it ended by draining."""

    def grown(i: int, part: str) -> int:
        return sum(value - before[i].get(name, 0) for name, value in after[i].items() if part in name)

    return {
        name: {
            "listeners": grown(i, "listener_modified"),
            "clusters": grown(i, "cluster_modified"),
            "drained": grown(i, "cx_drain_close"),
        }
        for i, name in enumerate(names)
    }


def page_of(groups: dict[str, dict[str, int]], changes: dict[str, Any], seconds: float) -> str:
    requests = [[name, f"{g['requests']:,}", str(g["failed"])] for name, g in groups.items()]
    changed = [[name, *(str(c[part]) for part in ("listeners", "clusters", "drained"))] for name, c in changes.items()]
    return "\n\n".join(
        [
            "# An upgrade under load",
            __doc__.partition("\n\n")[2].strip() if __doc__ else "",
            table(["Envoy and clients", "requests", "failed"], requests).strip(),
            table(["Envoy", "changed listeners", "changed clusters", "drained connections"], changed).strip(),
            f"From the start of the new control plane until all Envoys held everything: {seconds:.1f} s.",
        ]
    )
