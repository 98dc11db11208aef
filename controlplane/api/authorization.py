"""The authorization of the present call. Each call runs in a task of its own, and this is a context variable of it.

Without an access file there are no rules, and everything is allowed to everybody who reaches the port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from controlplane.access.caller import Caller
from controlplane.access.needs import Need, needs_of
from controlplane.access.roles import Permission
from controlplane.access.rules import Decision, Rules, Target, denied
from controlplane.domain import Object
from controlplane.domain.revision import Head
from controlplane.domain.state import Changes, State
from controlplane.errors import Code, Error, abbreviated

# Objects that an error or a warning names.
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Authorization:
    """The caller of a call, and the rules that hold for it."""

    caller: Caller = Caller()
    # None: everything is allowed.
    rules: Rules | None = None

    def require(self, permission: Permission, *targets: Target) -> None:
        """Check that the caller may do something with objects; without targets, with everything.

        Errors: PERMISSION_DENIED / NEEDS_ROLE.
        """
        if self.rules is None:
            return
        for target in targets or (None,):
            decision = self.rules.may(self.caller, permission, target)
            if not decision:
                raise denied(decision, target.name if target else "")

    def require_any(self, permissions: Iterable[Permission], name: str = "") -> None:
        """Check that the caller has one of several permissions on any object. `name` is an object for the error text.

        Errors: PERMISSION_DENIED / NEEDS_ROLE.
        """
        if self.rules is not None and not (decision := self.rules.may_any(self.caller, permissions, name)):
            raise denied(decision, name)

    def refusals(self, state: State, objects: Mapping[str, Object | None], *, cut: bool, unchanged: bool) -> dict[str, str]:
        """Return what the caller may not change, by resource name, with the explanation. The arguments are `needs_of`'s."""
        refusals: dict[str, str] = {}
        if self.rules is not None:
            for need in needs_of(state, objects, cut=cut, unchanged=unchanged):
                decision = self.rules.may(self.caller, need.permission, need.target)
                if not decision:
                    refusals.setdefault(need.because or need.target.name, _explanation(decision, need))
        return refusals


# The authorization of calls on a server without an access file.
ANYBODY = Authorization()

_CURRENT: ContextVar[Authorization] = ContextVar("authorization", default=ANYBODY)


def authorization() -> Authorization:
    """Return the authorization of the present call."""
    return _CURRENT.get()


def authorize(value: Authorization) -> None:
    """Set the authorization of the present call."""
    _CURRENT.set(value)


class CheckedChange:
    """A change that is refused if the caller may not make it. A dry run is not refused, and reports what would be."""

    def __init__(self, change: Callable[[Head], Changes], *, cut: bool, unchanged: bool, validate_only: bool) -> None:
        self._change = change
        self._cut, self._unchanged, self._validate_only = cut, unchanged, validate_only
        self._authorization = authorization()
        # Why the caller may not make the change that was last computed; "" if the caller may.
        self.refusal = ""

    def __call__(self, head: Head) -> Changes:
        """Return the changes. Errors: PERMISSION_DENIED / NEEDS_ROLE; those of the change."""
        changes = self._change(head)
        refusals = self._authorization.refusals(head.state, changes.objects, cut=self._cut, unchanged=self._unchanged)
        self.refusal = abbreviated(list(dict.fromkeys(refusals.values())), _LISTED) if refusals else ""
        if refusals and not self._validate_only:
            metadata = {"name": next(iter(refusals))}
            raise Error(Code.PERMISSION_DENIED, "NEEDS_ROLE", self.refusal, metadata=metadata)
        return changes


def _explanation(decision: Decision, need: Need) -> str:
    return f"{decision.explanation} ({need.because} names it)" if need.because else decision.explanation
