"""Shares as people write them, on the command line and in files: percent (`90%`) or basis points (`9000`).

`green=10` could mean 10 % or 0.1 %, so the shares of one split must have one unit. A share of 0 needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from controlplane.domain import FULL_SHARE

# Fields of the API whose values are shares.
SHARES = ("split", "basis_points")
# Basis points of one percent.
_PERCENT = 100


def basis_points(text: str) -> int | None:
    """Return `9000`, `90%` or `0.5%` as basis points; None if the text is not a share."""
    try:
        number = Decimal(text.removesuffix("%")) * (_PERCENT if text.endswith("%") else 1)
    except InvalidOperation:
        return None
    if not number.is_finite() or number != number.to_integral_value() or not 0 <= number <= FULL_SHARE:
        return None
    return int(number)


def unit_problem(shares: Mapping[str, str]) -> str:
    """Return what is wrong with the units of a split's shares, by version; empty if nothing is."""
    percent = [f"{version}={text}" for version, text in shares.items() if text.endswith("%")]
    plain = {version: int(text) for version, text in shares.items() if text.isascii() and text.isdecimal() and int(text)}
    if percent and plain:
        points = ", ".join(f"{version}={number}" for version, number in plain.items())
        return (
            f"the shares mix percent ({', '.join(percent)}) and basis points ({points}). 1% is 100 basis points: "
            f"write all of them in one unit, like {_in_percent(shares)}"
        )
    if not percent and sum(plain.values()) == _PERCENT:
        return (
            "the shares sum to 100 basis points, which is 1%. A share without a unit is in basis points, 1% is 100 of them: "
            f"write {', '.join(f'{version}={number}%' for version, number in plain.items())}"
        )
    return ""


def _in_percent(shares: Mapping[str, str]) -> str:
    """Return the shares in percent, each read in its own unit."""
    parts = []
    for version, text in shares.items():
        points = basis_points(text) or 0
        parts.append(f"{version}={points / _PERCENT:g}%")
    return " ".join(parts)
