"""A healthy client and an operator beside an attack: `python -m tests.attacks.beside [CONNECTIONS] [NAME …]`."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bench.bad_clients import manifest, switch
from controlplane.demo.plane import ControlPlane
from controlplane.generated.turnout.v1.revision_service_pb2 import ListRevisionsRequest
from tests.attacks.attacker import ATTACKS
from tests.fakes.xds_client import XdsClient, client

# Bounds during an attack: the median of the switches and of the calls, seconds, and memory, bytes.
SWITCH, CALL, MEMORY = 0.1, 0.2, 500_000_000


@dataclass
class Noticed:
    """The effect of an attack on others."""

    switches: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    memory: int = 0
    # What the attacker saw.
    attacker: dict[str, object] = field(default_factory=dict)

    def text(self) -> str:
        """Return the figures as a line."""
        switches, calls = (f"{1e3 * statistics.median(t):5.0f} {1e3 * max(t):6.0f}" for t in (self.switches, self.calls))
        return f"switch {switches} ms | call {calls} ms | {self.memory / 1e6:4.0f} MB | {self.attacker}"

    @property
    def within_bounds(self) -> bool:
        """Return True if switches, calls and memory are within their bounds."""
        return statistics.median(self.switches) < SWITCH and statistics.median(self.calls) < CALL and self.memory < MEMORY


@asynccontextmanager
async def served(models: int = 20) -> AsyncIterator[tuple[ControlPlane, XdsClient]]:
    """`turnout serve`, and a client that follows the protocol."""
    async with ControlPlane() as plane:
        await plane.apply(manifest(models))
        async with client(plane.xds_port, "healthy") as healthy:
            await plane.held(1, 1)
            yield plane, healthy


async def beside(plane: ControlPlane, healthy: XdsClient, name: str, connections: int, seconds: float) -> Noticed:
    """Attack for so long, and switch and call meanwhile."""
    noticed = Noticed()
    command = [sys.executable, "-m", "tests.attacks.attacker", name, str(plane.xds_port), str(connections), str(seconds)]
    attacker = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert attacker.stdout is not None
        await attacker.stdout.readline()
        await asyncio.sleep(0.1)
        end = time.monotonic() + seconds - 0.1
        turn = 0
        while time.monotonic() < end or not noticed.switches:
            turn += 1
            try:
                noticed.switches.append(await switch(plane, healthy, ("blue", "green")[turn % 2]))
            except TimeoutError:
                noticed.switches.append(20.0)
            began = time.perf_counter()
            await plane.revisions.ListRevisions(ListRevisionsRequest(page_size=1), timeout=60)
            noticed.calls.append(time.perf_counter() - began)
            noticed.memory = max(noticed.memory, plane.process.rss_bytes())
            await asyncio.sleep(0.02)
        noticed.attacker = json.loads(await attacker.stdout.readline() or b"{}")
    finally:
        if attacker.returncode is None:
            try:
                async with asyncio.timeout(5):
                    await attacker.wait()
            except TimeoutError:
                attacker.kill()
                await attacker.wait()
    return noticed


async def table(connections: int, names: list[str], seconds: float = 4.0) -> None:
    """Print a row for each attack, each on a new control plane."""
    for name in names or list(ATTACKS):
        async with served() as (plane, healthy):
            noticed = await beside(plane, healthy, name, connections, seconds)
            print(f"{'ok ' if noticed.within_bounds else 'BAD'} {name:38} {connections:3} | {noticed.text()}", flush=True)


if __name__ == "__main__":
    asyncio.run(table(int(sys.argv[1]) if len(sys.argv) > 1 else 1, sys.argv[2:]))
