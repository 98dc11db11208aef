"""A healthy client and an operator beside attacks: `python -m tests.attacks.beside [CONNECTIONS] [NAME …]`."""

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
from tests.attacks.attacker import ATTACKS, Order
from tests.fakes.xds_client import XdsClient, client

# Bounds during an attack: the median of the switches and of the calls, seconds, and memory, bytes.
SWITCH, CALL, MEMORY = 0.1, 0.2, 500_000_000


@dataclass
class Noticed:
    """The effect of an attack on others. Times are seconds."""

    switches: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    memory: int = 0
    # What the attacker saw.
    attacker: dict[str, object] = field(default_factory=dict)

    @property
    def switch(self) -> float:
        """Return the median time of a switch."""
        return statistics.median(self.switches)

    @property
    def call(self) -> float:
        """Return the median time of a call."""
        return statistics.median(self.calls)

    def text(self) -> str:
        """Return the figures as a line."""
        switches, calls = (f"{1e3 * statistics.median(t):5.0f} {1e3 * max(t):6.0f}" for t in (self.switches, self.calls))
        return f"switch {switches} ms | call {calls} ms | {self.memory / 1e6:4.0f} MB | {self.attacker}"

    @property
    def within_bounds(self) -> bool:
        """Return True if switches, calls and memory are within their bounds."""
        return self.switch < SWITCH and self.call < CALL and self.memory < MEMORY


class Beside:
    """`turnout serve`, a client that follows the protocol, an operator, and an attacker."""

    def __init__(self, plane: ControlPlane, healthy: XdsClient, attacker: asyncio.subprocess.Process) -> None:
        self.plane, self.healthy, self._attacker = plane, healthy, attacker
        self._turn = 0

    async def attacked(self, order: Order) -> Noticed:
        """Attack, and switch and call meanwhile."""
        noticed, attacker = Noticed(), self._attacker
        assert attacker.stdin is not None
        assert attacker.stdout is not None
        attacker.stdin.write(json.dumps(order).encode() + b"\n")
        await attacker.stdout.readline()
        await asyncio.sleep(0.1)
        end = time.monotonic() + order.seconds - 0.1
        while time.monotonic() < end or not noticed.switches:
            await self._once(noticed)
        noticed.attacker = json.loads(await attacker.stdout.readline())
        return noticed

    async def _once(self, noticed: Noticed) -> None:
        self._turn += 1
        try:
            noticed.switches.append(await switch(self.plane, self.healthy, ("blue", "green")[self._turn % 2]))
        except TimeoutError:
            noticed.switches.append(20.0)
        began = time.perf_counter()
        await self.plane.revisions.ListRevisions(ListRevisionsRequest(page_size=1), timeout=60)
        noticed.calls.append(time.perf_counter() - began)
        noticed.memory = max(noticed.memory, self.plane.process.rss_bytes())
        await asyncio.sleep(0.02)


@asynccontextmanager
async def served(models: int = 20) -> AsyncIterator[Beside]:
    """Start everything."""
    async with ControlPlane() as plane:
        await plane.apply(manifest(models))
        async with client(plane.xds_port, "healthy") as healthy:
            await plane.held(1, 1)
            command = [sys.executable, "-m", "tests.attacks.attacker", str(plane.xds_port)]
            pipe = asyncio.subprocess.PIPE
            attacker = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
            try:
                yield Beside(plane, healthy, attacker)
            finally:
                attacker.kill()
                await attacker.wait()


async def table(connections: int, names: list[str], seconds: float = 4.0) -> None:
    """Print a row for each attack, each on a new control plane."""
    for name in names or list(ATTACKS):
        async with served() as beside:
            noticed = await beside.attacked(Order(name, connections, seconds))
            print(f"{'ok ' if noticed.within_bounds else 'BAD'} {name:38} {connections:3} | {noticed.text()}", flush=True)


if __name__ == "__main__":
    asyncio.run(table(int(sys.argv[1]) if len(sys.argv) > 1 else 1, sys.argv[2:]))
