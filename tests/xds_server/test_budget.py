"""The time budget of one client."""

from __future__ import annotations

import pytest

from controlplane.xds_server.budget import Budget


def test_a_budget_permits_a_burst_and_then_a_tenth_of_the_time() -> None:
    budget = Budget()
    assert budget.spend(0.6, 1.0) == 0
    assert budget.spend(0.3, 1.0) == 0
    # 0.1 s above the burst: the client waits ten times that.
    assert budget.spend(0.2, 1.0) == pytest.approx(1.0)
    assert budget.spend(0.0, 2.0) == pytest.approx(0.0)


def test_a_client_that_uses_a_tenth_of_the_time_never_waits_and_saves_no_more_than_the_burst() -> None:
    budget = Budget()
    assert not any(budget.spend(0.1, float(n)) for n in range(1, 1_000))
    assert budget.spend(1.1, 10_000.0) == pytest.approx(1.0)
