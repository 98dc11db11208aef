"""Watches of the fleet: a stream of messages, each with the complete state at one time.

The cost of a message grows with the fleet. So a watch limits its rate, and lowers it further if messages take long to make: a
watch uses at most about a tenth of the process. The first message, and messages for which `urgent` is true, are sent at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from controlplane.aio.latest import Latest
from controlplane.errors import Code, Error
from controlplane.fleet import Fleet

M = TypeVar("M")

# If a message takes long to make, the next one follows after this many times that duration.
_IDLE_FACTOR = 10


async def watch(
    changed: Latest[Fleet | None],
    message_of: Callable[[Fleet], M],
    interval: float,
    urgent: Callable[[Fleet], bool] = lambda fleet: False,
) -> AsyncIterator[M]:
    """Yield a message at once, and one after each change of the fleet.

    There are at least `interval` seconds between two messages, except when `urgent` is true. Errors: UNAVAILABLE when the
    control plane stops.
    """
    clock = asyncio.get_running_loop().time
    while True:
        serial, start = changed.serial, clock()
        message = message_of(current_fleet(changed))
        due = start + max(interval, (clock() - start) * _IDLE_FACTOR)
        yield message
        serial = await changed.newer(serial)
        while clock() < due and not urgent(current_fleet(changed)):
            try:
                async with asyncio.timeout_at(due):
                    serial = await changed.newer(serial)
            except TimeoutError:
                break


def current_fleet(changed: Latest[Fleet | None]) -> Fleet:
    """Return the fleet. Errors: UNAVAILABLE when the control plane stops."""
    if changed.value is None:
        raise Error(Code.UNAVAILABLE, "NOT_SERVING", "the control plane is stopping; try again")
    return changed.value
