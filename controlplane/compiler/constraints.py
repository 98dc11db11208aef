"""The constraints written into Envoy's protos (`validate.rules`), checked on raw messages.

Envoy compiles them into its binary and refuses what breaks them. protoc-gen-validate's own Python package generates code per
message and does not load under protobuf 7; so this reads the options from the descriptors instead. Each message type becomes
a plan once: what must be set, which fields are wrong when left out, and what to ask of those that are set. Checking a message
then visits only what is set in it.

Not read, since no message that is compiled here is reached by them: rules on timestamps, and strings that must be a URI, a
UUID or an e-mail address. A rule of a kind that is not read makes the plan fail, rather than pass unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from validate import validate_pb2

# What is wrong with a value; None when nothing is.
Check = Callable[[Any], "str | None"]
# A path from the top of the message, and what is wrong there.
Problem = tuple[str, str]

_WRAPPED = {
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}
# RFC 9110, section 5.1 and 5.5, and the looser forms for rules that are not `strict`.
_HEADER_NAME = re.compile(r":?[0-9A-Za-z!#$%&'*+.^_|~`-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0A-\x1F\x7F]*")
_LOOSE = re.compile(r"[^\x00\x0A\x0D]*")


@dataclass(slots=True)
class _Plan:
    """What to check in messages of one type."""

    # Oneofs of which one must be set, and fields that must be.
    oneofs: list[str] = field(default_factory=list)
    required: list[str] = field(default_factory=list)
    # Fields whose default breaks a rule, with what it says then.
    unset: list[tuple[str, str]] = field(default_factory=list)
    # By number, for fields that are set.
    checks: dict[int, list[Check]] = field(default_factory=dict)
    item_checks: dict[int, list[Check]] = field(default_factory=dict)
    key_checks: dict[int, list[Check]] = field(default_factory=dict)
    # Numbers of fields that hold messages to go on into, and whether they are maps.
    messages: dict[int, bool] = field(default_factory=dict)


def problems(message: Any, path: str = "") -> Iterator[Problem]:
    """Every constraint that a message breaks, wherever in it, also inside `google.protobuf.Any`."""
    descriptor = message.DESCRIPTOR
    if descriptor.full_name == "google.protobuf.Any":
        yield from _unpacked(message, path)
        return
    plan = _plan(descriptor)
    for name in plan.oneofs:
        if message.WhichOneof(name) is None:
            yield _at(path, name), "one of its fields must be set"
    for name in plan.required:
        if not message.HasField(name):
            yield _at(path, name), "must be set"
    for name, said in plan.unset:
        if not getattr(message, name):
            yield _at(path, name), said
    for f, value in message.ListFields():
        for check in plan.checks.get(f.number, ()):
            if wrong := check(value):
                yield _at(path, f.name), wrong
        is_map = plan.messages.get(f.number)
        if f.is_repeated:
            yield from _items(plan, f, value, _at(path, f.name), is_map)
        elif is_map is not None:
            yield from problems(value, _at(path, f.name))


def _items(plan: _Plan, f: Any, values: Any, path: str, is_map: bool | None) -> Iterator[Problem]:
    item_checks = plan.item_checks.get(f.number, ())
    entries = values.items() if hasattr(values, "items") else enumerate(values)
    for key, item in entries if item_checks or is_map is not None or f.number in plan.key_checks else ():
        at = f"{path}[{key}]"
        for check in plan.key_checks.get(f.number, ()):
            if said := check(key):
                yield at, said
        for check in item_checks:
            if said := check(item):
                yield at, said
        if is_map is not None:
            yield from problems(item, at)


def unpack(message: Any) -> Any:
    """The message in a `google.protobuf.Any`. KeyError when its type is not known here, DecodeError when it isn't that."""
    descriptor = descriptor_pool.Default().FindMessageTypeByName(message.type_url.rpartition("/")[2])
    return message_factory.GetMessageClass(descriptor).FromString(message.value)


def _unpacked(message: Any, path: str) -> Iterator[Problem]:
    try:
        inner = unpack(message)
    except KeyError:
        yield path, f"its type '{message.type_url[:200]}' is not known"
    except DecodeError:
        yield path, f"is not a {message.type_url[:200]}"
    else:
        yield from problems(inner, path)


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@cache
def _plan(descriptor: Any) -> _Plan:
    plan = _Plan()
    options = descriptor.GetOptions()
    if options.Extensions[validate_pb2.disabled] or options.Extensions[validate_pb2.ignored]:
        return plan
    plan.oneofs = [o.name for o in descriptor.oneofs if o.GetOptions().Extensions[validate_pb2.required]]
    for f in descriptor.fields:
        rules = f.GetOptions().Extensions[validate_pb2.rules]
        if f.message_type and not rules.message.skip:
            if not f.message_type.GetOptions().map_entry:
                plan.messages[f.number] = False
            elif f.message_type.fields_by_name["value"].message_type:
                plan.messages[f.number] = True
        kind = rules.WhichOneof("type") or ""
        detail: Any = getattr(rules, kind, None)
        # In a oneof that has another field set, nothing is asked of this one.
        if not f.containing_oneof and (rules.message.required or (kind in ("duration", "any") and detail.required)):
            plan.required.append(f.name)
        if not kind:
            continue
        checks = _checks(kind, detail, f)
        if kind == "repeated":
            plan.item_checks[f.number] = _of(detail.items, f)
        if kind == "map":
            plan.key_checks[f.number], plan.item_checks[f.number] = (
                _of(detail.keys, f),
                _of(detail.values, f),
            )
        if f.message_type and f.message_type.full_name in _WRAPPED:
            checks = [_of_wrapper(c) for c in checks]
        plan.checks[f.number] = checks
        if not f.has_presence:
            default = () if f.is_repeated else f.default_value
            plan.unset += [(f.name, said) for c in checks if (said := c(default))]
    return plan


def _of(rules: Any, f: Any) -> list[Check]:
    """The checks of a FieldRules; none when it is empty."""
    kind = rules.WhichOneof("type")
    return _checks(kind, getattr(rules, kind), f) if kind else []


def _of_wrapper(check: Check) -> Check:
    return lambda wrapper: check(wrapper.value)


def _checks(kind: str, rules: Any, f: Any) -> list[Check]:
    """What the rules of one kind (`string`, `uint32`, `repeated` …) ask of a value of field `f`."""
    checks = [_well_known(rules)] if kind == "string" and rules.WhichOneof("well_known") else []
    for rule, value in rules.ListFields():
        if rule.name == "defined_only":
            checks.append(_defined(f.enum_type))
        elif rule.name not in ("strict", "ignore_empty", "required", "items", "keys", "values", "well_known_regex"):
            checks.append(_check(kind, rule.name, value))
    if getattr(rules, "ignore_empty", False):
        return [_unless_empty(c) for c in checks]
    return checks


def _defined(enum: Any) -> Check:
    return lambda v: None if v in enum.values_by_number else f"{v} is no {enum.name}"


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
        return lambda v: None if len(set(v)) == len(v) else "must not hold anything twice"
    holds, words = _SIZED[rule]
    return lambda v: None if holds(v, bound) else f"{words} {bound!r}"


_COMPARED: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "const": (lambda v, b: bool(v == b), "exactly"),
    "lt": (lambda v, b: bool(v < b), "below"),
    "lte": (lambda v, b: bool(v <= b), "at most"),
    "gt": (lambda v, b: bool(v > b), "above"),
    "gte": (lambda v, b: bool(v >= b), "at least"),
}
_SIZED: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
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


def _well_known(rules: Any) -> Check:
    if rules.WhichOneof("well_known") != "well_known_regex":
        raise NotImplementedError(f"string rule {rules.WhichOneof('well_known')}")
    names = rules.well_known_regex == validate_pb2.HTTP_HEADER_NAME
    what = "name" if names else "value"
    pattern = (_HEADER_NAME if names else _HEADER_VALUE) if rules.strict else _LOOSE
    return lambda v: None if pattern.fullmatch(v) else f"must be the {what} of an HTTP header"
