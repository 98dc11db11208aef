"""The order and the pace of pushes."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from controlplane.xds_server.push_schedule import IDLE_STEP, LONGEST_IDLE, IdleTime, push_order


@dataclass
class Stream:
    number: int
    deprioritised: bool


@given(st.lists(st.booleans()))
def test_deprioritised_streams_come_last_and_the_order_is_kept_otherwise(flags: list[bool]) -> None:
    streams = [Stream(n, flag) for n, flag in enumerate(flags)]
    ordered = push_order(streams)
    assert [s.number for s in ordered] == [
        *(s.number for s in streams if not s.deprioritised),
        *(s.number for s in streams if s.deprioritised),
    ]


def naps(push_seconds: float, nap_seconds: float) -> int:
    """Return how many naps there are after a push, when each takes this long."""
    now, count = 0.0, 0
    idle = IdleTime(push_seconds, now)
    while not idle.is_over(now):
        now += nap_seconds
        idle.record_nap(nap_seconds)
        count += 1
    return count


def test_no_push_begins_for_twice_as_long_as_the_last_one_took() -> None:
    assert naps(0.0, IDLE_STEP) == 0
    assert naps(IDLE_STEP / 2, IDLE_STEP) == 0
    assert naps(IDLE_STEP, IDLE_STEP) == 1
    assert naps(0.02, IDLE_STEP) in (7, 8)


def test_naps_in_which_the_loop_was_busy_do_not_count_but_idle_time_ends() -> None:
    assert naps(0.02, 6 * IDLE_STEP) == 7  # until LONGEST_IDLE, and the last nap ends after it


@given(st.floats(0, 10), st.floats(IDLE_STEP, 10 * IDLE_STEP))
def test_idle_time_is_bounded(push_seconds: float, nap_seconds: float) -> None:
    seconds = naps(push_seconds, nap_seconds) * nap_seconds
    assert seconds <= LONGEST_IDLE + nap_seconds
    assert seconds <= 2 * push_seconds or nap_seconds > IDLE_STEP
