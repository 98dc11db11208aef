"""The constraints written into Envoy's protos (`validate.rules`), checked on messages of any type.

Envoy compiles them into its binary and refuses messages that break them. protoc-gen-validate's own Python package generates
code for each message and does not load under protobuf 7, so this module reads the options from the descriptors instead. For
each message type it makes a plan once: the fields that must be set, the fields whose default breaks a rule, and the checks of
those that are set. Checking a message then visits only the fields that are set in it.

Not read, since no message that is compiled here has such fields: rules on timestamps, and strings that must be a URI, a UUID
or an e-mail address. A rule of an unknown kind makes the plan fail, so that none is skipped silently.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from validate import validate_pb2

from controlplane.compiler.checks import Check, checks_of, checks_of_kind
from controlplane.compiler.decode import unpack

# A path from the top of the message, and what is wrong there.
Problem = tuple[str, str]

_WRAPPERS = {
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}


@dataclass(slots=True)
class _Plan:
    """The checks of messages of one type."""

    # Oneofs of which one field must be set, and fields that must be set.
    oneofs: list[str] = field(default_factory=list)
    required: list[str] = field(default_factory=list)
    # Fields whose default breaks a rule, so that they must be set, with the text of the problem.
    unset: list[tuple[str, str]] = field(default_factory=list)
    # By field number, for fields that are set.
    checks: dict[int, list[Check]] = field(default_factory=dict)
    item_checks: dict[int, list[Check]] = field(default_factory=dict)
    key_checks: dict[int, list[Check]] = field(default_factory=dict)
    # Numbers of fields that hold messages with plans of their own; True for maps.
    messages: dict[int, bool] = field(default_factory=dict)


class Constraints:
    """Finds broken constraints. Keeps a plan for each message type that it has seen, at most as many as Envoy has."""

    def __init__(self) -> None:
        # By the full name of a message type.
        self._plans: dict[str, _Plan] = {}

    def problems(self, message: Any, path: str = "") -> Iterator[Problem]:
        """Yield every constraint that a message breaks at any depth, also inside `google.protobuf.Any`."""
        descriptor = message.DESCRIPTOR
        if descriptor.full_name == "google.protobuf.Any":
            yield from self._unpacked(message, path)
            return
        plan = self.plan(descriptor)
        for name in plan.oneofs:
            if message.WhichOneof(name) is None:
                yield _join(path, name), "one of its fields must be set"
        for name in plan.required:
            if not message.HasField(name):
                yield _join(path, name), "must be set"
        for name, text in plan.unset:
            if not getattr(message, name):
                yield _join(path, name), text
        for f, value in message.ListFields():
            for check in plan.checks.get(f.number, ()):
                if problem := check(value):
                    yield _join(path, f.name), problem
            is_map = plan.messages.get(f.number)
            if f.is_repeated:
                yield from self._items(plan, f, value, _join(path, f.name), is_map)
            elif is_map is not None:
                yield from self.problems(value, _join(path, f.name))

    def plan(self, descriptor: Any) -> _Plan:
        """Return the plan of a message type. Errors: NotImplementedError or KeyError for a rule of an unknown kind."""
        plan = self._plans.get(descriptor.full_name)
        if plan is None:
            plan = self._plans[descriptor.full_name] = _plan(descriptor)
        return plan

    def _items(self, plan: _Plan, f: Any, values: Any, path: str, is_map: bool | None) -> Iterator[Problem]:
        item_checks = plan.item_checks.get(f.number, ())
        entries = values.items() if hasattr(values, "items") else enumerate(values)
        for key, item in entries if item_checks or is_map is not None or f.number in plan.key_checks else ():
            item_path = f"{path}[{key}]"
            for check in plan.key_checks.get(f.number, ()):
                if text := check(key):
                    yield item_path, text
            for check in item_checks:
                if text := check(item):
                    yield item_path, text
            if is_map is not None:
                yield from self.problems(item, item_path)

    def _unpacked(self, message: Any, path: str) -> Iterator[Problem]:
        try:
            inner = unpack(message)
        except KeyError:
            yield path, f"its type '{message.type_url[:200]}' is not known"
        except DecodeError:
            yield path, f"is not a {message.type_url[:200]}"
        else:
            yield from self.problems(inner, path)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


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
        # A field of a oneof need not be set: another field of the same oneof may be.
        if not f.containing_oneof and (rules.message.required or (kind in ("duration", "any") and detail.required)):
            plan.required.append(f.name)
        if kind:
            _add_checks(plan, f, kind, detail)
    return plan


def _add_checks(plan: _Plan, f: Any, kind: str, rules: Any) -> None:
    checks = checks_of_kind(kind, rules, f)
    if kind == "repeated":
        plan.item_checks[f.number] = checks_of(rules.items, f)
    if kind == "map":
        plan.key_checks[f.number], plan.item_checks[f.number] = checks_of(rules.keys, f), checks_of(rules.values, f)
    if f.message_type and f.message_type.full_name in _WRAPPERS:
        checks = [_on_wrapper(c) for c in checks]
    plan.checks[f.number] = checks
    if not f.has_presence:
        default = () if f.is_repeated else f.default_value
        plan.unset += [(f.name, text) for c in checks if (text := c(default))]


def _on_wrapper(check: Check) -> Check:
    return lambda wrapper: check(wrapper.value)
