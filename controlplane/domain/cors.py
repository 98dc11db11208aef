"""Cross-origin resource sharing (CORS): the web pages that may call a gateway from a browser."""

from __future__ import annotations

import re
from dataclasses import dataclass

from controlplane.domain.checks import HEADER, check_distinct, check_range
from controlplane.errors import Collector, invalid

ANY_ORIGIN = "*"

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]{0,19}://((\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_METHOD = re.compile(r"[A-Z]{1,20}")


@dataclass(frozen=True, slots=True)
class Cors:
    """The policy for requests of web pages from other origins."""

    # `https://app.example.com`, `https://*.example.com`, or `*` alone.
    allow_origins: tuple[str, ...]
    allow_methods: tuple[str, ...] = ()  # empty: every method
    allow_headers: tuple[str, ...] = ()  # empty: every header
    expose_headers: tuple[str, ...] = ()
    allow_credentials: bool = False
    max_age: float | None = None  # seconds; None: the browser's default

    def __post_init__(self) -> None:
        c = Collector()
        with c.within(""):
            self._check_origins()
        with c.within(""):
            check_range(len(self.allow_methods), 0, 16, "allow_methods")
            check_distinct(self.allow_methods, "allow_methods")
            for i, method in enumerate(self.allow_methods):
                if not _METHOD.fullmatch(method):
                    raise invalid(f"allow_methods[{i}]", f"'{method[:80]}' is not a method, like POST")
        for name in ("allow_headers", "expose_headers"):
            with c.within(""):
                _check_headers(getattr(self, name), name)
        with c.within(""):
            if self.max_age is not None:
                check_range(self.max_age, 0, 86_400, "max_age", " s")
        c.check()

    def _check_origins(self) -> None:
        check_range(len(self.allow_origins), 1, 64, "allow_origins")
        check_distinct(self.allow_origins, "allow_origins")
        for i, origin in enumerate(self.allow_origins):
            if origin != ANY_ORIGIN and not _ORIGIN.fullmatch(origin):
                raise invalid(
                    f"allow_origins[{i}]",
                    f"'{origin[:80]}' is not an origin: '*', or a scheme and a host in lower case without a path, "
                    "like https://app.example.com or https://*.example.com",
                )
        if ANY_ORIGIN in self.allow_origins and self.allow_credentials:
            # Every web page in the world could act with the cookies of whoever visits it.
            raise invalid("allow_credentials", "can't be set together with the origin '*': name the origins")


def _check_headers(names: tuple[str, ...], field: str) -> None:
    check_range(len(names), 0, 64, field)
    check_distinct(names, field)
    for i, name in enumerate(names):
        if not HEADER.fullmatch(name):
            raise invalid(f"{field}[{i}]", f"'{name[:80]}' is not the name of a header in lower case")
