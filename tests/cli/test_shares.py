"""Shares in percent and in basis points."""

from __future__ import annotations

import pytest

from controlplane.cli.shares import basis_points, unit_problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9000", 9000),
        ("90%", 9000),
        ("0.01%", 1),
        ("0", 0),
        ("100%", 10000),
        ("33.333%", None),
        ("110%", None),
        ("-1", None),
        ("nan", None),
        ("", None),
        ("%", None),
    ],
)
def test_basis_points(text: str, expected: int | None) -> None:
    assert basis_points(text) == expected


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"blue": "90%", "green": "10%"}, ""),
        ({"blue": "9000", "green": "1000"}, ""),
        ({"blue": "100%", "green": "0"}, ""),
        ({"blue": "90%", "green": "1000"}, "mix percent (blue=90%) and basis points (green=1000)"),
        ({"blue": "90%", "green": "1000"}, "like blue=90% green=10%"),
        ({"blue": "90", "green": "10"}, "write blue=90%, green=10%"),
        ({"blue": "50", "green": "10"}, ""),
    ],
)
def test_shares_have_one_unit(shares: dict[str, str], expected: str) -> None:
    assert expected in unit_problem(shares)
    assert bool(unit_problem(shares)) is bool(expected)
