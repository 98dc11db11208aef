"""Pauses before a restart, and hung workers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.workers.restart_policy import (
    FIRST_PAUSE,
    HEALTHY_LIFETIME,
    LONGEST_PAUSE,
    MAX_UNANSWERED_PINGS,
    HangDetector,
    RestartPause,
)


def test_pauses_double_up_to_the_longest_and_start_over_after_a_healthy_life() -> None:
    pauses = RestartPause()
    assert [pauses.after(1.0) for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert [pauses.after(seconds) for seconds in (HEALTHY_LIFETIME + 1, 1.0, HEALTHY_LIFETIME)] == [0.1, 0.2, 0.4]


@given(st.lists(st.floats(0, 100)))
def test_every_pause_is_within_its_bounds_and_at_most_twice_the_one_before(lifetimes: list[float]) -> None:
    policy, before = RestartPause(), FIRST_PAUSE
    for lifetime in lifetimes:
        pause = policy.after(lifetime)
        assert FIRST_PAUSE <= pause <= min(LONGEST_PAUSE, 2 * before)
        assert lifetime <= HEALTHY_LIFETIME or pause == FIRST_PAUSE
        before = pause


@given(st.lists(st.booleans()))
def test_a_worker_hangs_when_it_has_not_answered_so_many_pings_in_a_row(answers: list[bool]) -> None:
    detector = HangDetector()
    for n, answered in enumerate(answers, 1):
        row = 0
        while row < n and not answers[n - 1 - row]:
            row += 1
        assert detector.is_hung(answered=answered) == (row == MAX_UNANSWERED_PINGS)
