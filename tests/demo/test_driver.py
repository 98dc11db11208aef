"""The load's bookkeeping: users, records, and the pace of a slot."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from controlplane.demo.driver import Driver, Pace
from controlplane.demo.load import FAILED, MAX_FAILURES, ROW, Group

GROUP = Group("127.0.0.1", 1, "/x", name="g")


def spec(**changes: Any) -> dict[str, Any]:
    group = {"host": "127.0.0.1", "port": 1, "path": "/x", "name": "g"}
    return {"groups": [group], "users": 2, "passes": 2, "first_user": 10} | changes


async def test_users_come_in_turn_and_the_last_one_stops_the_driver() -> None:
    driver = Driver(spec())
    assert [driver.next_user() for _ in range(5)] == [10, 11, 10, 11, None]
    assert driver.stopping.is_set()
    assert driver.busy == 4


async def test_a_stopping_driver_hands_out_no_user_and_waits_for_requests_in_flight() -> None:
    driver = Driver(spec(passes=0))
    assert driver.next_user() == 10
    driver.stopping.set()
    assert driver.next_user() is None
    waiting = asyncio.create_task(driver.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    driver.done(time.time(), 0.0, 10, 0, "blue")
    await asyncio.wait_for(waiting, 1)


async def test_records_are_written(tmp_path: Path) -> None:
    driver = Driver(spec())
    for _ in range(3):
        driver.next_user()
    driver.done(1.0, 2.0, 10, 0, "blue")
    driver.done(1.0, 0.0, 11, 0, "green")
    driver.done(1.0, 0.0, 10, 0, None, "broken")
    driver.write(tmp_path / "records")
    head, _, rows = (tmp_path / "records").read_bytes().partition(b"\n")
    assert json.loads(head)["versions"] == ["blue", "green"]
    assert json.loads(head)["groups"] == ["g"]
    (failure,) = json.loads(head)["failures"]
    assert failure.endswith("u10 /x: broken")
    records = list(ROW.iter_unpack(rows))
    assert [(user, version) for *_, user, version, _ in records] == [(10, 0), (11, 1), (10, FAILED)]
    assert records[0][1] == 2.0
    assert records[1][1] == records[1][2]  # without a head, its time is that of the end
    assert driver.counts == {"blue": 1, "green": 1, "failed": 1}


async def test_the_texts_of_failures_are_bounded() -> None:
    driver = Driver(spec())
    for _ in range(MAX_FAILURES + 5):
        driver.done(1.0, 0.0, 10, 0, None, "broken")
    assert (len(driver.failures), driver.counts["failed"]) == (MAX_FAILURES, MAX_FAILURES + 5)


def test_a_slot_keeps_its_rate_and_does_not_catch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = Pace(Group("h", 1, "/", connections=2, slots=5, rate=100.0), slot=5)
    assert pace.delay() == pytest.approx(0.05)  # half of the interval of 0.1 s
    assert pace.delay() == pytest.approx(0.15)
    now = 200.0
    assert pace.delay() == 0.0
    assert pace.delay() == pytest.approx(0.1)
    assert Pace(GROUP, slot=3).delay() == 0.0
