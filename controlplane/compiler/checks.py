"""Turn a field's `validate.rules` into functions that check a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from validate import validate_pb2

# Returns what is wrong with a value, or None.
Check = Callable[[Any], "str | None"]

# RFC 9110, section 5.1 and 5.5, and the looser forms for rules that are not `strict`.
_HEADER_NAME = re.compile(r":?[0-9A-Za-z!#$%&'*+.^_|~`-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0A-\x1F\x7F]*")
_LOOSE = re.compile(r"[^\x00\x0A\x0D]*")

# Rules that change how other rules apply, and check nothing themselves.
_MODIFIERS = frozenset({"strict", "ignore_empty", "required", "items", "keys", "values", "well_known_regex"})

# By rule: the test of a value against the bound, and the text before the bound.
_COMPARED: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "const": (lambda v, b: bool(v == b), "exactly"),
    "lt": (lambda v, b: bool(v < b), "below"),
    "lte": (lambda v, b: bool(v <= b), "at most"),
    "gt": (lambda v, b: bool(v > b), "above"),
    "gte": (lambda v, b: bool(v >= b), "at least"),
}
_SIZED: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "len": (lambda v, b: len(v) == b, "its length must be"),
    "min_len": (lambda v, b: len(v) >= b, "its length must be at least"),
    "max_len": (lambda v, b: len(v) <= b, "its length must be at most"),
    "min_bytes": (lambda v, b: len(v.encode()) >= b, "its length in bytes must be at least"),
    "max_bytes": (lambda v, b: len(v.encode()) <= b, "its length in bytes must be at most"),
    "min_items": (lambda v, b: len(v) >= b, "its number of items must be at least"),
    "max_items": (lambda v, b: len(v) <= b, "its number of items must be at most"),
    "min_pairs": (lambda v, b: len(v) >= b, "its number of entries must be at least"),
    "prefix": (lambda v, b: v.startswith(b), "must begin with"),
    "suffix": (lambda v, b: v.endswith(b), "must end with"),
    "contains": (lambda v, b: b in v, "must contain"),
    "not_contains": (lambda v, b: b not in v, "must not contain"),
}


def checks_of(rules: Any, f: Any) -> list[Check]:
    """Return the checks of a FieldRules message for field `f`; none if it is empty."""
    kind = rules.WhichOneof("type")
    return checks_of_kind(kind, getattr(rules, kind), f) if kind else []


def checks_of_kind(kind: str, rules: Any, f: Any) -> list[Check]:
    """Return the checks of rules of one kind (`string`, `uint32`, `repeated` …) for field `f`.

    Errors: NotImplementedError or KeyError for a rule that is not known.
    """
    checks = [_well_known(rules)] if kind == "string" and rules.WhichOneof("well_known") else []
    for rule, value in rules.ListFields():
        if rule.name == "defined_only":
            checks.append(_defined(f.enum_type))
        elif rule.name not in _MODIFIERS:
            checks.append(_check(kind, rule.name, value))
    if getattr(rules, "ignore_empty", False):
        return [_unless_empty(c) for c in checks]
    return checks


def _defined(enum: Any) -> Check:
    return lambda v: None if v in enum.values_by_number else f"{v} is not a value of {enum.name}"


def _unless_empty(check: Check) -> Check:
    return lambda value: check(value) if value else None


def _check(kind: str, rule: str, bound: Any) -> Check:
    if kind == "duration" and rule in _COMPARED:
        bound = bound.ToTimedelta()
        holds, words = _COMPARED[rule]
        return lambda v: None if holds(v.ToTimedelta(), bound) else f"must be {words} {bound.total_seconds():g} s"
    if rule in _COMPARED:
        holds, words = _COMPARED[rule]
        return lambda v: None if holds(v, bound) else f"must be {words} {bound!r}"
    if rule == "pattern":
        pattern = re.compile(bound)
        return lambda v: None if pattern.search(v) else f"must match {bound}"
    if rule in ("in", "not_in"):
        options, wanted = frozenset(bound), rule == "in"
        return lambda v: None if (v in options) is wanted else f"must{'' if wanted else ' not'} be one of {sorted(options)}"
    if rule == "unique":
        return lambda v: None if len(set(v)) == len(v) else "must not hold a value twice"
    holds, words = _SIZED[rule]
    return lambda v: None if holds(v, bound) else f"{words} {bound!r}"


def _well_known(rules: Any) -> Check:
    if rules.WhichOneof("well_known") != "well_known_regex":
        raise NotImplementedError(f"string rule {rules.WhichOneof('well_known')}")
    names = rules.well_known_regex == validate_pb2.HTTP_HEADER_NAME
    part = "name" if names else "value"
    pattern = (_HEADER_NAME if names else _HEADER_VALUE) if rules.strict else _LOOSE
    return lambda v: None if pattern.fullmatch(v) else f"must be the {part} of an HTTP header"
