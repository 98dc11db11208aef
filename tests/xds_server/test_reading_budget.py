"""The decision when a stream pauses reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.xds_server.budget import Budget
from controlplane.xds_server.reading_budget import READING_TIME_SLICE, ReadingBudget


def test_a_stream_reads_on_until_its_slice_is_used() -> None:
    budget, now = ReadingBudget(), 0.0
    step = READING_TIME_SLICE / 4
    pauses = []
    for _ in range(5):
        pauses.append(budget.pause_after(now, now + step))
        now += step
    assert pauses == [None, None, None, None, 0.0]
    budget.start_slice()
    assert budget.pause_after(now, now + step) is None


def test_the_pause_is_ten_times_the_time_used_beyond_the_budget() -> None:
    budget = ReadingBudget()
    assert budget.pause_after(0.0, Budget.BURST) == 0.0
    budget.start_slice()
    assert budget.pause_after(1.0, 1.5) == pytest.approx((0.5 - 0.5 * Budget.SHARE) / Budget.SHARE)


@given(st.lists(st.tuples(st.floats(0, 0.02), st.floats(0, 0.5)), max_size=60))
def test_a_stream_never_uses_more_than_a_burst_and_its_share(requests: list[tuple[float, float]]) -> None:
    """Each request takes some time, and follows the one before after some time, or after the pause."""
    budget, now, used = ReadingBudget(), 0.0, 0.0
    for seconds, gap in requests:
        start, now = now, now + seconds
        used += seconds
        pause = budget.pause_after(start, now)
        assert used <= Budget.BURST + now * Budget.SHARE + 0.02
        if pause is not None:
            budget.start_slice()
        now += max(gap, pause or 0.0)
