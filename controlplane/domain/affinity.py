"""Affinity: the requests of one conversation go to the same endpoint of a version."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.domain.checks import HEADER, check_header
from controlplane.errors import invalid


@dataclass(frozen=True, slots=True)
class Affinity:
    """The header or the cookie that identifies a conversation: exactly one of the two."""

    header: str = ""
    cookie: str = ""

    def __post_init__(self) -> None:
        if bool(self.header) == bool(self.cookie):
            raise invalid("", "set either a header or a cookie that identifies the conversation")
        if self.header:
            check_header(self.header, "header")
        elif not HEADER.fullmatch(self.cookie.lower()):
            raise invalid("cookie", f"'{self.cookie[:80]}' is not the name of a cookie")
