"""Rate limits: valid by construction."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controlplane.domain import Gateway, RateLimit, RateLimiting
from controlplane.errors import Error


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: RateLimit(0), "requests"),
        (lambda: RateLimit(1, 0.5), "per"),
        (lambda: RateLimit(1, 3601), "per"),
        (lambda: RateLimit(1, header="X-User"), "header"),
        (lambda: RateLimit(1, header="x-user", client_address=True), ""),
        (lambda: RateLimit(1, header="x-user", cookie="session"), ""),
        (lambda: RateLimit(1, cookie="a;b"), "cookie"),
        (lambda: RateLimiting(max_users=0), "max_users"),
        (lambda: Gateway("g", 80, rate_limiting=RateLimiting(True)), "rate_limiting.divide_by_expected_nodes"),
    ],
)
def test_an_invalid_limit_is_refused_at_its_field(make: Callable[[], object], field: str) -> None:
    with pytest.raises(Error) as caught:
        make()
    assert caught.value.violations[0].field == field


def test_a_limit_is_by_user_if_users_are_told_apart() -> None:
    assert not RateLimit(1).by_user
    assert RateLimit(1, header="x-user").by_user
    assert RateLimit(1, cookie="Session").by_user
    assert RateLimit(1, client_address=True).by_user
