"""Changes that one version makes to its requests before they go to its endpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.domain.checks import check_distinct, check_header, check_header_value, check_label, check_range
from controlplane.errors import Collector, invalid

# Headers whose value is secret. A version gets them from a secret only, because desired state is shown to everyone.
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization"})
_MAX_HEADERS = 32

AUTHORIZATION = "authorization"
# RFC 9110, section 11.1: an auth-scheme is a token.
_SCHEME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,40}")


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """Request headers that a version sets or removes. Names are in lower case."""

    # Value by name. A header that the client sent is replaced.
    set: Mapping[str, str]
    remove: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        c = Collector()
        with c.within(""):
            check_range(len(self.set), 0, _MAX_HEADERS, "set")
            check_range(len(self.remove), 0, _MAX_HEADERS, "remove")
            check_distinct(self.remove, "remove")
        for name, value in self.set.items():
            with c.within(""):
                check_header(name, f"set.{name[:80]}")
                if name in _SECRET_HEADERS:
                    raise invalid(f"set.{name}", "is a credential: set it with `credential`, which takes it from a secret")
                check_header_value(value, f"set.{name}")
        for i, name in enumerate(self.remove):
            with c.within(""):
                check_header(name, f"remove[{i}]")
                if name in self.set:
                    raise invalid(f"remove[{i}]", f"'{name}' is set, too: choose one of them")
        c.check()
        # Sorted, so that equal headers compile to equal bytes.
        object.__setattr__(self, "set", dict(sorted(self.set.items())))

    def __bool__(self) -> bool:
        return bool(self.set or self.remove)


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret that Envoy adds to each request of a version. It replaces a header of the same name from the client."""

    secret: str  # the label of a secret of kind `opaque`
    header: str = AUTHORIZATION
    # The word before the secret, like `Bearer`; "": the secret alone. None becomes `Bearer` in authorization, "" elsewhere.
    scheme: str | None = None

    def __post_init__(self) -> None:
        check_label(self.secret, "secret")
        check_header(self.header, "header")
        if self.scheme and not _SCHEME.fullmatch(self.scheme):
            raise invalid("scheme", f"'{self.scheme[:80]}' is not the name of an authentication scheme, such as Bearer")
        if self.scheme is None:
            object.__setattr__(self, "scheme", "Bearer" if self.header == AUTHORIZATION else "")
