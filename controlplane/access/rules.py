"""Rules that give roles to callers, and decisions with explanations. What no rule gives is denied.

A rule has a role, the callers that have it, and the objects that it is for:

    who: [group:ml-team]
    role: switcher
    on: [models/iris, models/wine-*]

Without `on`, `gateways` and `labels`, a rule is for everything. With several of them, an object must fulfil all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controlplane.access.caller import Caller, Credential
from controlplane.access.roles import LEAST_ROLE, PERMISSIONS, Permission, Role
from controlplane.errors import Code, Error, abbreviated, escaped

# In `who`: every caller with a valid credential.
EVERYONE = "everyone"
GROUP = "group:"

# Roles in an explanation, and characters of a caller's identity, which a certificate may choose.
_ROLES, _IDENTITY = 5, 200


@dataclass(frozen=True, slots=True)
class Target:
    """An object, with what rules compare."""

    name: str  # the resource name, like `models/iris`
    gateways: tuple[str, ...] = ()  # labels: the gateways of a model; a gateway itself
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """A role, who has it, and the objects that it is for."""

    who: tuple[str, ...]
    role: Role
    on: tuple[str, ...] = ()  # resource names, each with one `*` at most
    gateways: tuple[str, ...] = ()  # labels of gateways, each with one `*` at most
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def everything(self) -> bool:
        """True if the rule is for all objects."""
        return not (self.on or self.gateways or self.labels)

    def is_for(self, caller: Caller, groups: frozenset[str]) -> bool:
        """Return True if a caller, who is in `groups`, has the role."""
        return any(
            who == EVERYONE or (who[len(GROUP) :] in groups if who.startswith(GROUP) else matches(who, caller.identity))
            for who in self.who
        )

    def covers(self, target: Target | None) -> bool:
        """Return True if the rule is for an object; None is everything."""
        if self.everything:
            return True
        if target is None:
            return False
        # Traffic of a model moves at all of its gateways, so the rule must name each of them.
        at_gateways = bool(target.gateways) and all(any(matches(g, label) for g in self.gateways) for label in target.gateways)
        return (
            (not self.on or any(matches(pattern, target.name) for pattern in self.on))
            and (not self.gateways or at_gateways)
            and all(target.labels.get(key) == value for key, value in self.labels.items())
        )

    @property
    def text(self) -> str:
        """The role and its objects in words, like `switcher on models/iris`."""
        parts = [self.role.value]
        if self.on:
            parts.append(f"on {abbreviated(self.on, 3)}")
        if self.gateways:
            parts.append(f"at gateway {abbreviated(self.gateways, 3)}")
        if self.labels:
            parts.append(f"with {abbreviated([f'{k}={v}' for k, v in self.labels.items()], 3)}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a question whether somebody may do something."""

    allowed: bool
    # Why, like `needs switcher on models/iris; user:anna is viewer`.
    explanation: str

    def __bool__(self) -> bool:
        return self.allowed


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules, and the groups that the access file defines."""

    rules: tuple[Rule, ...] = ()
    # Members by group: identities, each with one `*` at most.
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def may(self, caller: Caller, permission: Permission, target: Target | None = None) -> Decision:
        """Decide if a caller may do something with an object. None is everything, as for the audit log.

        Reading is not limited to objects: any role permits it.
        """
        mine = self.of(caller)
        for rule in mine:
            if permission in PERMISSIONS[rule.role] and (permission is Permission.VIEW or rule.covers(target)):
                return Decision(True, f"{_name(caller)} is {rule.text}")
        return Decision(False, self._refusal(caller, mine, permission, target.name if target else ""))

    def may_any(self, caller: Caller, permissions: Iterable[Permission], name: str = "") -> Decision:
        """Decide if a caller has one of several permissions on any object. `name` is an object for the explanation."""
        wanted = list(permissions)
        mine = self.of(caller)
        for rule in mine:
            if not PERMISSIONS[rule.role].isdisjoint(wanted):
                return Decision(True, f"{_name(caller)} is {rule.text}")
        return Decision(False, self._refusal(caller, mine, wanted[0], name))

    def of(self, caller: Caller) -> list[Rule]:
        """Return the rules that give a role to a caller."""
        if caller.credential is Credential.NONE:
            return []
        groups = self.groups_of(caller)
        return [rule for rule in self.rules if rule.is_for(caller, groups)]

    def groups_of(self, caller: Caller) -> frozenset[str]:
        """Return the caller's groups: those of the credential, and those of the access file."""
        own = (group for group, members in self.groups.items() if any(matches(m, caller.identity) for m in members))
        return caller.groups.union(own)

    def _refusal(self, caller: Caller, mine: list[Rule], permission: Permission, name: str) -> str:
        roles = abbreviated(list(dict.fromkeys(rule.text for rule in mine)), _ROLES)
        # Reading is for everything, so no object is named.
        where = f" on {escaped(name)}" if name and permission is not Permission.VIEW else ""
        needed = LEAST_ROLE[permission].value + where
        return f"needs {needed}; {_name(caller)} {f'is {roles}' if roles else 'has no role'}"


def denied(decision: Decision, name: str = "") -> Error:
    """Return the error of a decision that denies something about the object with a name."""
    metadata = {"name": name} if name else {}
    return Error(Code.PERMISSION_DENIED, "NEEDS_ROLE", decision.explanation, metadata=metadata)


def matches(pattern: str, text: str) -> bool:
    """Return True if a pattern with one `*` at most, which stands for any text, matches a whole text. It takes linear time."""
    before, star, after = pattern.partition("*")
    if not star:
        return text == pattern
    return len(text) >= len(before) + len(after) and text.startswith(before) and text.endswith(after)


def _name(caller: Caller) -> str:
    return escaped(caller.identity[:_IDENTITY]) or "a caller without a credential"
