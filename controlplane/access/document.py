"""The access file: roles of callers, in YAML or JSON. Each error has its line, and all errors are reported at once.

oidc:
  issuer: https://login.example.com
  audience: turnout
  name_claim: email
  groups_claim: groups
groups:
  ml-team: [user:anna@example.com, token:ci]
rules:
  - who: [group:ml-team]
    role: switcher
    on: [models/iris, models/wine-*]
  - who: [group:sre]
    role: admin
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from controlplane.access.caller import parse_identity
from controlplane.access.file_reader import FileReader, InvalidValue
from controlplane.access.roles import Role
from controlplane.access.rules import EVERYONE, GROUP, Rule, Rules
from controlplane.domain.collections import BY_NAME
from controlplane.errors import did_you_mean

# Collections that a rule may name: those of desired state, and the nodes.
COLLECTIONS = (*BY_NAME, "nodes")


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """The OpenID provider whose access tokens are accepted."""

    issuer: str  # an https URL, or http on loopback
    audience: str  # must be among the `aud` of each token
    # Claims with the user's name, which no other user may have, and with the user's groups.
    name_claim: str = "sub"
    groups_claim: str = "groups"
    # `typ` in the header of access tokens (RFC 9068). Providers that do not set it need `unmarked`.
    token_type: str = "at+jwt"
    # Seconds by which the clocks of the provider and of this machine may differ.
    clock_skew: int = 30
    # Path of the authorities that sign the provider's certificate; "": those of the system.
    ca: str = ""


@dataclass(frozen=True, slots=True)
class AccessFile:
    """The content of an access file."""

    rules: Rules
    oidc: OidcSettings | None = None


def parse(text: str, file: str) -> AccessFile:
    """Return the content of an access file. Errors: INVALID_ARGUMENT with `file:line` of everything that is wrong."""
    return _Parser(file).parse(text)


class _Parser(FileReader[AccessFile]):
    """Reads one access file."""

    def read(self, node: Any) -> AccessFile:
        """Return the content of the file."""
        entries = self.mapping(node, "", ("oidc", "groups", "rules"))
        oidc = self._oidc(entries["oidc"]) if "oidc" in entries else None
        groups = self._groups(entries["groups"]) if "groups" in entries else {}
        rules: list[Rule] = []
        if "rules" not in entries:
            self.problem(node, "", "needs `rules`: without them, everything is denied")
        else:
            for i, item in enumerate(self.items(entries["rules"], "rules")):
                with suppress(InvalidValue):
                    rules += self._rule(item, f"rules[{i}]")
        return AccessFile(Rules(tuple(rules), groups), oidc)

    def _rule(self, node: Any, at: str) -> list[Rule]:
        entries = self.mapping(node, at, ("who", "role", "on", "gateways", "labels"))
        for key in ("who", "role"):
            if key not in entries:
                self.problem(node, at, f"needs `{key}`")
        if "who" not in entries or "role" not in entries:
            return []
        who = self.texts(entries["who"], f"{at}.who", _subject_problem)
        role = self._role(entries["role"], f"{at}.role")
        on = self.texts(entries["on"], f"{at}.on", _object_problem) if "on" in entries else ()
        gateways = self.texts(entries["gateways"], f"{at}.gateways", _pattern_problem) if "gateways" in entries else ()
        labels = {}
        if "labels" in entries:
            labels = {k: self.text(v, f"{at}.labels.{k}") for k, v in self.mapping(entries["labels"], f"{at}.labels").items()}
        for key in ("on", "gateways", "labels"):
            if key in entries and role is Role.VIEWER:
                self.problem(entries[key], f"{at}.{key}", "viewer is for everything: leave it out")
            elif key in entries and not {"on": on, "gateways": gateways, "labels": labels}[key]:
                self.problem(entries[key], f"{at}.{key}", "is empty: leave it out if the rule is for everything")
        return [Rule(who, role, on, gateways, labels)] if role is not None else []

    def _role(self, node: Any, at: str) -> Role | None:
        name = self.text(node, at)
        roles = {role.value: role for role in Role}
        if name not in roles:
            hint = did_you_mean(name, roles) or f"there are: {', '.join(roles)}"
            self.problem(node, at, f"'{name[:80]}' is not a role; {hint}")
        return roles.get(name)

    def _groups(self, node: Any) -> Mapping[str, tuple[str, ...]]:
        groups = {}
        for name, members in self.mapping(node, "groups").items():
            groups[name] = self.texts(members, f"groups.{name}", _member_problem)
        return groups

    def _oidc(self, node: Any) -> OidcSettings | None:
        names = ("issuer", "audience", "name_claim", "groups_claim", "token_type", "clock_skew", "ca")
        entries = self.mapping(node, "oidc", names)
        for key in ("issuer", "audience"):
            if key not in entries:
                self.problem(node, "oidc", f"needs `{key}`")
        texts = {key: self.text(value, f"oidc.{key}") for key, value in entries.items()}
        skew = texts.pop("clock_skew", "30")
        if not re.fullmatch(r"\d{1,3}", skew) or int(skew) > 300:
            self.problem(entries["clock_skew"], "oidc.clock_skew", f"'{skew[:80]}' is not a number of seconds: 0 to 300")
            return None
        issuer = texts.get("issuer", "")
        if "issuer" in texts and not re.fullmatch(
            r"https://[^\s?#]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/[^\s?#]*)?", issuer
        ):
            self.problem(entries["issuer"], "oidc.issuer", f"'{issuer[:80]}' is not an https URL (http on loopback only)")
        return OidcSettings(clock_skew=int(skew), **texts) if {"issuer", "audience"} <= texts.keys() else None


def _pattern_problem(text: str) -> str:
    return "has more than one '*'" if text.count("*") > 1 else ""


def _member_problem(text: str) -> str:
    if parse_identity(text) is None:
        return "is not user:NAME, token:NAME or certificate:NAME"
    return _pattern_problem(text)


def _subject_problem(text: str) -> str:
    if text == EVERYONE or (text.startswith(GROUP) and len(text) > len(GROUP)):
        return ""
    if parse_identity(text) is None:
        return f"is not user:NAME, token:NAME, certificate:NAME, group:NAME or {EVERYONE}"
    return _pattern_problem(text)


def _object_problem(text: str) -> str:
    collection, slash, label = text.partition("/")
    if collection not in COLLECTIONS or not slash or not label:
        hint = did_you_mean(collection, COLLECTIONS) or f"there are: {', '.join(COLLECTIONS)}"
        return f"is not COLLECTION/NAME, like models/iris or models/*; {hint}"
    return _pattern_problem(text)
