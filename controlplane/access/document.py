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
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from controlplane.access.caller import parse_identity
from controlplane.access.roles import Role
from controlplane.access.rules import EVERYONE, GROUP, Rule, Rules
from controlplane.domain.collections import BY_NAME
from controlplane.errors import Code, Error, did_you_mean

# Largest file.
MAX_CHARACTERS = 1 << 20

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
    # `typ` in the header of access tokens (RFC 9068). Providers that do not set it need `JWT` here.
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
    return _Parser(file).document(text)


class _Invalid(Exception):
    """Ends the reading of one value, whose problem is recorded."""


class _Parser:
    """Reads one file, and records what is wrong."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[str] = []

    def document(self, text: str) -> AccessFile:
        result = AccessFile(Rules())
        if len(text) > MAX_CHARACTERS:
            self._problems.append(f"{self._file}: is larger than {MAX_CHARACTERS:,} characters")
        else:
            try:
                root = yaml.compose(text, Loader=yaml.SafeLoader)
                result = self._root(root) if root is not None else result
                if root is None:
                    self._problems.append(f"{self._file}: is empty; it must have `rules`")
            except _Invalid:
                pass
            except (yaml.YAMLError, RecursionError) as error:
                mark = getattr(error, "problem_mark", None)
                line = f":{mark.line + 1}" if mark else ""
                reason = getattr(error, "problem", None) or "is nested too deep"
                self._problems.append(f"{self._file}{line}: is not YAML: {reason}")
        if self._problems:
            raise Error(Code.INVALID_ARGUMENT, "INVALID_FILE", "\n".join(self._problems))
        return result

    def _root(self, node: Any) -> AccessFile:
        entries = self._mapping(node, "", ("oidc", "groups", "rules"))
        oidc = self._oidc(entries["oidc"]) if "oidc" in entries else None
        groups = self._groups(entries["groups"]) if "groups" in entries else {}
        rules: list[Rule] = []
        if "rules" not in entries:
            self._problem(node, "", "needs `rules`: without them, everything is denied")
        else:
            for i, item in enumerate(self._items(entries["rules"], "rules")):
                with suppress(_Invalid):
                    rules += self._rule(item, f"rules[{i}]")
        return AccessFile(Rules(tuple(rules), groups), oidc)

    def _rule(self, node: Any, at: str) -> list[Rule]:
        entries = self._mapping(node, at, ("who", "role", "on", "gateways", "labels"))
        for key in ("who", "role"):
            if key not in entries:
                self._problem(node, at, f"needs `{key}`")
        if "who" not in entries or "role" not in entries:
            return []
        who = self._texts(entries["who"], f"{at}.who", _subject_problem)
        role = self._role(entries["role"], f"{at}.role")
        on = self._texts(entries["on"], f"{at}.on", _object_problem) if "on" in entries else ()
        gateways = self._texts(entries["gateways"], f"{at}.gateways", _pattern_problem) if "gateways" in entries else ()
        labels = {}
        if "labels" in entries:
            labels = {
                k: self._text(v, f"{at}.labels.{k}") for k, v in self._mapping(entries["labels"], f"{at}.labels").items()
            }
        for key in ("on", "gateways", "labels"):
            if key in entries and role is Role.VIEWER:
                self._problem(entries[key], f"{at}.{key}", "viewer is for everything: leave it out")
            elif key in entries and not {"on": on, "gateways": gateways, "labels": labels}[key]:
                self._problem(entries[key], f"{at}.{key}", "is empty: leave it out if the rule is for everything")
        return [Rule(who, role, on, gateways, labels)] if role is not None else []

    def _role(self, node: Any, at: str) -> Role | None:
        name = self._text(node, at)
        roles = {role.value: role for role in Role}
        if name not in roles:
            hint = did_you_mean(name, roles) or f"there are: {', '.join(roles)}"
            self._problem(node, at, f"'{name[:80]}' is not a role; {hint}")
        return roles.get(name)

    def _groups(self, node: Any) -> Mapping[str, tuple[str, ...]]:
        groups = {}
        for name, members in self._mapping(node, "groups").items():
            groups[name] = self._texts(members, f"groups.{name}", _member_problem)
        return groups

    def _oidc(self, node: Any) -> OidcSettings | None:
        names = ("issuer", "audience", "name_claim", "groups_claim", "token_type", "clock_skew", "ca")
        entries = self._mapping(node, "oidc", names)
        for key in ("issuer", "audience"):
            if key not in entries:
                self._problem(node, "oidc", f"needs `{key}`")
        texts = {key: self._text(value, f"oidc.{key}") for key, value in entries.items()}
        skew = texts.pop("clock_skew", "30")
        if not re.fullmatch(r"\d{1,3}", skew) or int(skew) > 300:
            self._problem(entries["clock_skew"], "oidc.clock_skew", f"'{skew[:80]}' is not a number of seconds: 0 to 300")
            return None
        issuer = texts.get("issuer", "")
        if "issuer" in texts and not re.fullmatch(
            r"https://[^\s?#]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/[^\s?#]*)?", issuer
        ):
            self._problem(entries["issuer"], "oidc.issuer", f"'{issuer[:80]}' is not an https URL (http on loopback only)")
        return OidcSettings(clock_skew=int(skew), **texts) if {"issuer", "audience"} <= texts.keys() else None

    # ------------------------------------------------------------------------------------------------------- values

    def _mapping(self, node: Any, at: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the values by key. Record unknown and repeated keys."""
        if not isinstance(node, yaml.MappingNode):
            self._fail(node, at, "must be a mapping")
        entries: dict[str, Any] = {}
        for key_node, value in node.value:
            key = self._text(key_node, at)
            if known and key not in known:
                hint = did_you_mean(key, known) or f"there are: {', '.join(known)}"
                self._problem(key_node, at, f"unknown key '{key[:80]}'; {hint}")
            elif key in entries:
                self._problem(key_node, at, f"'{key[:80]}' is given twice")
            else:
                entries[key] = value
        return entries

    def _items(self, node: Any, at: str) -> list[Any]:
        if not isinstance(node, yaml.SequenceNode):
            self._fail(node, at, "must be a list")
        items: list[Any] = node.value
        return items

    def _text(self, node: Any, at: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            self._fail(node, at, "must be a text")
        return str(node.value)

    def _texts(self, node: Any, at: str, problem: Callable[[str], str]) -> tuple[str, ...]:
        """Return a list of texts. Record the ones with a problem."""
        texts = []
        for i, item in enumerate(self._items(node, at)):
            text = self._text(item, f"{at}[{i}]")
            if found := problem(text):
                self._problem(item, f"{at}[{i}]", f"'{text[:80]}' {found}")
            texts.append(text)
        return tuple(texts)

    def _problem(self, node: Any, at: str, description: str) -> None:
        place = f"{self._file}:{node.start_mark.line + 1}"
        self._problems.append(": ".join(part for part in (place, at, description) if part))

    def _fail(self, node: Any, at: str, description: str) -> Any:
        self._problem(node, at, description)
        raise _Invalid


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
