"""The attack table: a healthy client's switch and an operator's call while a client attacks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.attacks.attacker import ATTACKS, Order
from tests.attacks.beside import Beside, Noticed, served

# One of each family, by how the server must end the attacker's connections; "" where it need not within the short time. Before
# their work was charged and done in turns, one connection of each made a switch take 0.8 to 13 s.
SHORT = {
    "frames of an unknown type": "GOAWAY 11",
    "empty DATA (9518)": "GOAWAY 11",
    "SETTINGS of 2,730 entries": "",
    "dynamic table": "",
    "rapid reset (CVE-2023-44487)": "",
    "gzip of empty extensions": "",
    "200 streams of large requests": "",
    "bytes that are not HTTP/2": "GOAWAY 6",
}


def is_served(noticed: Noticed) -> bool:
    """Return True if nothing stalls. The limits are larger than the bounds, because other tests share the cores."""
    return noticed.switch < 0.5 and noticed.call < 0.5 and noticed.memory < 500_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def beside() -> AsyncIterator[Beside]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(served())


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", SHORT)
async def test_an_attack_delays_nobody_else(beside: Beside, name: str) -> None:
    address = f"127.0.1.{1 + list(SHORT).index(name)}"
    noticed = await beside.attacked(Order(name, 1, 0.7, (address,)))
    assert is_served(noticed), noticed.text()
    ends = noticed.attacker["ends"]
    assert isinstance(ends, dict)
    if SHORT[name]:
        assert SHORT[name] in ends, noticed.text()
    assert beside.healthy.ended is None


@pytest.mark.slow
@pytest.mark.parametrize("connections", [1, 20])
@pytest.mark.parametrize("name", ATTACKS)
async def test_each_attack_leaves_the_healthy_client_served(name: str, connections: int) -> None:
    async with served() as beside:
        noticed = await beside.attacked(Order(name, connections, 4.0))
        assert is_served(noticed), noticed.text()


@pytest.mark.soak
@pytest.mark.parametrize("connections", [1, 20])
@pytest.mark.parametrize("name", ATTACKS)
async def test_the_bounds_hold_during_each_attack(name: str, connections: int) -> None:
    """It needs a quiet machine. `docs/attacks.md` lists the rows that fail."""
    async with served() as beside:
        noticed = await beside.attacked(Order(name, connections, 4.0))
        assert noticed.within_bounds, noticed.text()
