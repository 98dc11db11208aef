"""Counters without zero counts."""

from collections import Counter

from controlplane.fleet.counting import decrement


def test_a_key_is_dropped_at_zero() -> None:
    counter = Counter(a=2)
    decrement(counter, "a")
    assert counter == {"a": 1}
    decrement(counter, "a")
    assert not counter
    assert "a" not in counter
