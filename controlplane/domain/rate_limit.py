"""Rate limits: how many requests each Envoy accepts for a model, and how a gateway applies that."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.domain.checks import HEADER, check_bounds, check_header, check_range
from controlplane.errors import invalid


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A number of requests in a time, for all users together, or for each user. At most one of the last three is set."""

    requests: int
    per: float = 1.0
    header: str = ""  # identifies the user
    client_address: bool = False  # each address of a client is a user
    cookie: str = ""  # identifies the user

    def __post_init__(self) -> None:
        check_bounds(self, "requests")
        check_range(self.per, 1, 3600, "per", " s")
        if bool(self.header) + bool(self.cookie) + self.client_address > 1:
            raise invalid("", "a user is identified by a header, a cookie or the client's address: choose one of them")
        if self.header:
            check_header(self.header, "header")
        if self.cookie and not HEADER.fullmatch(self.cookie.lower()):
            raise invalid("cookie", f"'{self.cookie[:80]}' is not the name of a cookie")

    @property
    def by_user(self) -> bool:
        """True if each user has a limit of its own."""
        return bool(self.header or self.cookie or self.client_address)


@dataclass(frozen=True, slots=True)
class RateLimiting:
    """The settings of a gateway for the rate limits of its models."""

    divide_by_expected_nodes: bool = False  # False: each Envoy accepts the whole limit
    max_users: int = 10_000  # users that are remembered for each limit

    def __post_init__(self) -> None:
        check_bounds(self, "max_users")
