"""Decode YAML trees into a Manifest, by the proto's JSON form.

The place of every field is recorded, so that an error of the server about `models[0].versions[1].port` can name the line.
Problems are collected; nothing is raised.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.cli.document import BOOLS, NULLS, NUMBER, Mapping, Node, Scalar, Sequence, is_text
from controlplane.cli.enums import short, short_values
from controlplane.cli.exits import Place, Problem
from controlplane.cli.json_object import json_object
from controlplane.cli.shares import SHARES, basis_points, unit_problem
from controlplane.domain import BOUNDS
from controlplane.domain.collections import BY_NAME, COLLECTIONS
from controlplane.errors import join_path
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest

# Keys of a file: one list of objects for each collection.
KEYS = tuple(row.name for row in COLLECTIONS)
# The keys in a sentence: `gateways:`, `models:` and `secrets:`.
KEYS_TEXT = ", ".join(f"`{key}:`" for key in KEYS[:-1]) + f" and `{KEYS[-1]}:`"

_INTEGER = re.compile(r"[-+]?[0-9]+(\.0+)?")
_DURATION = re.compile(r"([0-9]{1,12})(\.[0-9]{1,9})?s")
_DURATION_HINT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|m|h|)")
# The largest Duration, in seconds.
_MAX_SECONDS = 315_576_000_000
_INT_RANGES = {
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
}


class Decoder:
    """Decodes any number of documents into one Manifest."""

    def __init__(self) -> None:
        self.manifest = Manifest()
        self.problems: list[Problem] = []
        # Path of a field in `manifest` -> its place in a file.
        self.places: dict[str, Place] = {}
        # Resource name -> path of the object in `manifest`.
        self.paths: dict[str, str] = {}
        self._file = ""
        # True inside a sensitive object: error texts must not quote values there, because one may be a private key.
        self._in_sensitive = False

    def add(self, document: Node, file: str) -> None:
        """Add the objects of one document; an empty document has none."""
        self._file, self._in_sensitive = file, False
        if is_null(document):
            return
        if not isinstance(document, Mapping):
            self._problem(
                document,
                "",
                f"is {self._kind(document)}; a file must contain lists of objects under {KEYS_TEXT}",
            )
            return
        for key, (key_node, value) in document.entries.items():
            if key not in KEYS:
                self._unknown(key_node, "", KEYS)
            elif is_null(value):
                continue
            elif not isinstance(value, Sequence):
                self._in_sensitive = BY_NAME[key].sensitive
                self._problem(value, key, f"is {_kind(value)}; it must be a list: put `- ` before each object")
            else:
                for item in value.items:
                    self._object(key, item)

    def _object(self, collection: str, node: Node) -> None:
        self._in_sensitive = BY_NAME[collection].sensitive
        repeated = getattr(self.manifest, collection)
        path = f"{collection}[{len(repeated)}]"
        message = repeated.add()
        self._message(node, message, path)
        name = str(message.name)
        if not name:
            return
        resource = name if name.startswith(f"{collection}/") else f"{collection}/{name}"
        if resource in self.paths:
            first = self.places[self.paths[resource]]
            self._problem(node, f"{path}.name", f"{resource} is defined already, at {first}")
        else:
            self.paths[resource] = path

    def _message(self, node: Node, message: Message, path: str) -> None:
        self.places.setdefault(path, Place(self._file, node.line))
        if isinstance(message, Duration):
            self._duration(node, message, path)
        elif isinstance(message, Timestamp):
            self._timestamp(node, message, path)
        elif isinstance(message, Struct) and isinstance(node, Mapping):
            message.update(json_object(node))
        elif not isinstance(node, Mapping):
            expected = "be an object" if isinstance(message, Struct) else f"have fields: {_name_list(_fields(message))}"
            self._problem(node, path, f"is {self._kind(node)}; it must {expected}")
        else:
            first_keys: dict[str, Scalar] = {}
            for key, (key_node, value) in node.entries.items():
                field = _fields(message).get(key)
                if field is None:
                    self._unknown(key_node, path, [f.name for f in message.DESCRIPTOR.fields])
                elif (first := first_keys.setdefault(field.name, key_node)) is not key_node:
                    self._problem(key_node, path, f"'{key}' is given twice; the first is '{first.text}' on line {first.line}")
                else:
                    self._field(key_node, value, message, field, join_path(path, field.name))

    def _field(self, key: Scalar, node: Node, message: Message, field: FieldDescriptor, path: str) -> None:
        self.places[path] = Place(self._file, key.line)
        if is_null(node):
            # Null means unset in the JSON form. A message without fields, like `host`, means something by its presence, so
            # null is an error there.
            if field.message_type is not None and not field.message_type.fields and field.containing_oneof is not None:
                self._problem(key, path, f"has no value; write `{field.name}: {{}}`")
            return
        if field.containing_oneof is not None and (other := message.WhichOneof(field.containing_oneof.name)):
            self._problem(key, path, f"can't be set together with `{other}`: choose one of them")
            return
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._map(node, getattr(message, field.name), field, path)
        elif field.is_repeated:
            self._repeated(node, getattr(message, field.name), field, path)
        elif field.message_type is not None:
            part = getattr(message, field.name)
            part.SetInParent()
            self._message(node, part, path)
        else:
            value = self._scalar(node, field, path)
            if value is not None:
                setattr(message, field.name, value)

    def _repeated(self, node: Node, repeated: Any, field: FieldDescriptor, path: str) -> None:
        if not isinstance(node, Sequence):
            self._problem(node, path, f"is {self._kind(node)}; it must be a list")
            return
        for i, item in enumerate(node.items):
            at = f"{path}[{i}]"
            self.places[at] = Place(self._file, item.line)
            if field.message_type is not None:
                self._message(item, repeated.add(), at)
            elif (value := self._scalar(item, field, at)) is not None:
                repeated.append(value)

    def _map(self, node: Node, target: Any, field: FieldDescriptor, path: str) -> None:
        if not isinstance(node, Mapping):
            self._problem(node, path, f"is {self._kind(node)}; it must be names with values")
            return
        assert field.message_type is not None
        value_field = field.message_type.fields_by_name["value"]
        if field.name in SHARES:
            texts = {key: item.text for key, (_, item) in node.entries.items() if isinstance(item, Scalar)}
            if problem := unit_problem(texts):
                self._problem(node, path, problem)
                return
        for key, (key_node, item) in node.entries.items():
            at = f"{path}.{key}"
            self.places[at] = Place(self._file, key_node.line)
            if (value := self._scalar(item, value_field, at, field.name)) is not None:
                target[key] = value

    def _scalar(self, node: Node, field: FieldDescriptor, path: str, name: str = "") -> str | int | bool | None:
        """Return the value, or None after recording a problem. `name` is the map that contains the value."""
        if not isinstance(node, Scalar):
            self._problem(node, path, f"is {self._kind(node)}; it must be {_wanted(field)}")
        elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            if not node.plain or is_text(node.text):
                return node.text
            example = "" if self._in_sensitive else f", '{node.text}'"
            self._problem(node, path, f"is {self._kind(node)}; it must be text: write it in quotes{example}")
        elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            if node.plain and node.text in BOOLS:
                return BOOLS[node.text]
            self._problem(node, path, f"is {self._kind(node)}; it must be true or false")
        elif field.enum_type is not None:
            return self._enum(node, field.enum_type, path)
        elif (name or field.name) in SHARES and node.text.endswith("%"):
            if (share := basis_points(node.text)) is not None:
                return share
            self._problem(node, path, f"'{node.text[:80]}' is not a share: percent from 0% to 100% with at most two decimals")
        elif not _INTEGER.fullmatch(node.text) or len(node.text) > 30:
            self._problem(node, path, f"is {self._kind(node)}; it must be a whole number")
        else:
            low, high = _INT_RANGES[field.cpp_type]
            number = int(node.text.partition(".")[0])
            if low <= number <= high:
                return number
            # Name the limits of the field if it has some, not those of a 32-bit integer.
            low, high = BOUNDS.get(name or field.name, (low, high))
            self._problem(node, path, f"{number:,} is out of range: {low:,} to {high:,}")
        return None

    def _enum(self, node: Scalar, enum: EnumDescriptor, path: str) -> int | None:
        if node.text in enum.values_by_name:
            return int(enum.values_by_name[node.text].number)
        values = short_values(enum.name, [(v.name, v.number) for v in enum.values])
        text = short(node.text)
        if text in values:
            return values[text]
        close = get_close_matches(text, values, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"the values are: {', '.join(values)}"
        self._problem(node, path, f"'{node.text[:80]}' is not one of the values; {hint}")
        return None

    def _duration(self, node: Node, message: Duration, path: str) -> None:
        if isinstance(node, Scalar) and (written := _DURATION.fullmatch(node.text)):
            if (whole := int(written[1])) < _MAX_SECONDS:
                message.FromJsonString(node.text)
            else:
                self._problem(node, path, f"{whole:,} s is out of range: the maximum is a day")
            return
        hint = ""
        if isinstance(node, Scalar) and (like := _DURATION_HINT.fullmatch(node.text)):
            seconds = float(like[1]) * {"ms": 0.001, "m": 60, "h": 3600, "": 1}[like[2]]
            hint = f": write {seconds:g}s"
        self._problem(
            node, path, f"is {self._kind(node)}; it must be a number of seconds that ends in s, like 5s or 0.5s{hint}"
        )

    def _timestamp(self, node: Node, message: Timestamp, path: str) -> None:
        try:
            message.FromJsonString(node.text if isinstance(node, Scalar) else "")
        except (ValueError, OverflowError):
            self._problem(node, path, f"is {self._kind(node)}; it must be a time like 2026-01-31T12:00:00Z")

    def _unknown(self, key: Scalar, path: str, known: list[str] | tuple[str, ...]) -> None:
        close = get_close_matches(key.text.lower(), known, n=1, cutoff=0.6)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys: {_name_list(known)}"
        if not path and not close:
            hint = f"put objects into lists under {KEYS_TEXT}"
        problem = "unknown key" if self._in_sensitive and not close else f"unknown key '{key.text[:80]}'"
        self._problem(key, path, f"{problem}; {hint}")

    def _problem(self, node: Node, path: str, description: str) -> None:
        self.problems.append(Problem(Place(self._file, node.line), path, description))

    def _kind(self, node: Node) -> str:
        return "text" if self._in_sensitive and isinstance(node, Scalar) and not is_null(node) else _kind(node)


def is_null(node: Node) -> bool:
    """Return True if the value is empty or null."""
    return isinstance(node, Scalar) and node.plain and node.text in NULLS


def _fields(message: Message) -> dict[str, Any]:
    """Return a message's fields by both of their names: snake_case and lowerCamelCase."""
    fields = message.DESCRIPTOR.fields
    return {f.name: f for f in fields} | {f.json_name: f for f in fields}


def _kind(node: Node) -> str:
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    if is_null(node):
        return "nothing"
    if node.plain and node.text in BOOLS:
        return f"the truth value {node.text}"
    kind = "the number" if node.plain and NUMBER.fullmatch(node.text) else "the text"
    text = " ".join(node.text[:60].split())
    return f"{kind} {text}" if kind == "the number" else f"{kind} '{text}'"


def _wanted(field: FieldDescriptor) -> str:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return "text"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return "true or false"
    return "one of its values" if field.enum_type is not None else "a whole number"


def _name_list(names: Any) -> str:
    """Return the first twelve names for an error text, without spellings in lowerCamelCase."""
    listed = list(dict.fromkeys(n for n in names if n == n.lower()))
    return ", ".join(listed[:12]) + (" …" if len(listed) > 12 else "")
