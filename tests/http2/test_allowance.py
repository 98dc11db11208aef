"""An allowance that refills with time."""

from __future__ import annotations

from controlplane.http2.allowance import Allowance, Rate


def test_a_burst_and_then_what_comes_back() -> None:
    allowance = Allowance(Rate(10, 2))
    assert allowance.full(0.0)
    allowance.spend(10, 100.0)
    assert not allowance.exceeded(100.0)
    assert not allowance.full(100.0)
    allowance.spend(4, 100.0)
    assert allowance.exceeded(101.9)
    assert not allowance.exceeded(102.0)
    assert allowance.full(107.0)


def test_nothing_is_saved_beyond_the_burst() -> None:
    allowance = Allowance(Rate(1, 1))
    allowance.spend(1.5, 1_000_000.0)
    assert allowance.exceeded(1_000_000.0)
