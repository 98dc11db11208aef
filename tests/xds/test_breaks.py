"""Each deliberate break of the cores is noticed by their tests: `make mutants`, as a slow test."""

from __future__ import annotations

import pytest

from tests.xds.breaks import BREAKS, Break, caught


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("broken", BREAKS, ids=lambda b: f"{b.rule} {b.name}")
def test_a_break_is_noticed(broken: Break) -> None:
    assert caught(broken)
