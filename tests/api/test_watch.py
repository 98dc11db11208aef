"""Watches: the times at which messages are sent."""

import asyncio

import pytest

from controlplane.aio.latest import Latest
from controlplane.api.watch import current_fleet, watch
from controlplane.errors import Code, Error
from controlplane.fleet import Fleet
from controlplane.xds.events import Held
from tests.api.test_progress import fleet_of


async def test_messages_are_an_interval_apart_and_have_the_newest_state() -> None:
    fleet = fleet_of("a", "b", "c")
    changed: Latest[Fleet | None] = Latest(fleet)
    messages = watch(changed, lambda f: f.holding(2), 0.5)
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await anext(messages) == 0
    next_message = asyncio.ensure_future(anext(messages))
    for stream in (0, 1, 2):
        fleet.apply(stream, Held(2), 101)
        changed.set(fleet)
        await asyncio.sleep(0.01)
    assert await next_message == 3
    assert loop.time() - start >= 0.5


async def test_messages_that_take_long_are_sent_less_often() -> None:
    fleet = fleet_of("a")
    changed: Latest[Fleet | None] = Latest(fleet)
    loop = asyncio.get_running_loop()

    def slow(_: Fleet) -> float:
        until = loop.time() + 0.02
        while loop.time() < until:
            pass
        return until

    messages = watch(changed, slow, 0.01)
    first = await anext(messages)
    changed.set(fleet)
    assert await anext(messages) - first >= 0.2


async def test_no_message_is_sent_while_nothing_changes() -> None:
    messages = watch(Latest[Fleet | None](fleet_of("a")), lambda f: f.connected, 0.01)
    assert await anext(messages) == 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(messages), 0.1)


async def test_a_watch_ends_when_the_control_plane_stops() -> None:
    changed: Latest[Fleet | None] = Latest(fleet_of("a"))
    messages = watch(changed, lambda f: f.connected, 5.0)
    await anext(messages)
    next_message = asyncio.ensure_future(anext(messages))
    await asyncio.sleep(0)
    changed.set(None)
    with pytest.raises(Error) as caught:
        await asyncio.wait_for(next_message, 1)
    assert caught.value.code is Code.UNAVAILABLE


async def test_an_urgent_change_is_sent_before_the_interval_ends() -> None:
    fleet = fleet_of("a")
    changed: Latest[Fleet | None] = Latest(fleet)
    messages = watch(changed, lambda f: f.holding(2), 60.0, lambda f: f.holding(2) == f.connected)
    assert await anext(messages) == 0
    fleet.apply(0, Held(2), 101)
    changed.set(fleet)
    assert await asyncio.wait_for(anext(messages), 10) == 1


def test_there_is_no_fleet_once_the_control_plane_stops() -> None:
    fleet = Fleet()
    assert current_fleet(Latest[Fleet | None](fleet)) is fleet
    with pytest.raises(Error) as caught:
        current_fleet(Latest[Fleet | None](None))
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "NOT_SERVING")
