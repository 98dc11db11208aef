"""A gate that believes the metadata `x-identity`, like `user:anna`, and rules that a test can replace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controlplane.access.caller import Caller, parse_identity
from controlplane.access.document import parse
from controlplane.access.rules import Rules
from controlplane.errors import Code, Error


class FakeGate:
    """Callers by metadata. `expires` is when all their credentials expire."""

    def __init__(self, rules: str, expires: float | None = None) -> None:
        self.rules: Rules | None = parse(rules, "access.yaml").rules
        self.expires = expires

    async def caller(self, context: Any, address: str) -> Caller:
        metadata = dict(context.invocation_metadata() or ())
        caller = parse_identity(str(metadata.get("x-identity", "")))
        if caller is None:
            raise Error(Code.UNAUTHENTICATED, "NO_CREDENTIAL", "no credential")
        return replace(caller, expires=self.expires, address=address)


def acting(identity: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call by a caller."""
    return (("x-identity", identity),)
