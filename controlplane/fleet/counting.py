"""Counters without zero counts."""

from __future__ import annotations

from collections import Counter
from typing import Any


def decrement(counter: Counter[Any], key: object) -> None:
    """Subtract one, and drop the key at zero."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
