"""Make the JSON Schema of a Manifest from proto descriptors with comments. The same protos give the same bytes.

Files may spell a field's name in snake_case or, as `turnout get -o json` does, in lowerCamelCase. The second spelling is among
the `patternProperties`: editors accept it, and suggest only the first.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet

from controlplane.cli.enums import short_values
from controlplane.cli.shares import SHARES

Schema = dict[str, Any]

_ROOT = ".turnout.v1.Manifest"
# How google.protobuf's own types are written in the JSON form.
_WELL_KNOWN: dict[str, Schema] = {
    ".google.protobuf.Duration": {
        "type": "string",
        "pattern": r"^\d{1,12}(\.\d{1,9})?s$",
        "examples": ["5s", "0.5s"],
    },
    ".google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
}
_SCALARS: dict[int, Schema] = {
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptorProto.TYPE_INT32: {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
}
_PERCENT = r"^\d{1,3}(\.\d{1,2})?%$"
# Field numbers of descriptor.proto, by which comments are found.
_FILE_MESSAGE, _FILE_ENUM, _MESSAGE_FIELD = 4, 5, 2


def generate(files: FileDescriptorSet) -> Schema:
    """Return the schema of the root message, with a definition for each message and enum that it refers to."""
    index = _Index(files)
    root = index.message_schema(_ROOT)
    root.pop("required", None)
    definitions: Schema = {}
    pending = sorted(index.used)
    while pending:
        name = pending.pop(0)
        if name not in definitions:
            definitions[name] = index.schema(name)
            pending = sorted(index.used - definitions.keys())
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Turnout: desired state",
        **root,
        "definitions": {_short(name): definitions[name] for name in sorted(definitions)},
    }


class _Index:
    """Messages, enums and comments by name."""

    def __init__(self, files: FileDescriptorSet) -> None:
        self.messages: dict[str, DescriptorProto] = {}
        self.enums: dict[str, EnumDescriptorProto] = {}
        self.comments: dict[tuple[str, int], str] = {}
        # Names that schemas refer to so far.
        self.used: set[str] = set()
        for file in files.file:
            comments = {tuple(place.path): _clean(place.leading_comments) for place in file.source_code_info.location}
            for i, message in enumerate(file.message_type):
                name = f".{file.package}.{message.name}"
                self.messages[name] = message
                self.comments[name, -1] = comments.get((_FILE_MESSAGE, i), "")
                for j, field in enumerate(message.field):
                    self.comments[name, field.number] = comments.get((_FILE_MESSAGE, i, _MESSAGE_FIELD, j), "")
            for i, enum in enumerate(file.enum_type):
                name = f".{file.package}.{enum.name}"
                self.enums[name] = enum
                self.comments[name, -1] = comments.get((_FILE_ENUM, i), "")

    def schema(self, name: str) -> Schema:
        """Return the schema of a message or an enum."""
        if name in self.enums:
            return {"description": self.comments[name, -1], "type": "string", "enum": _values(self.enums[name])}
        return self.message_schema(name)

    def message_schema(self, name: str) -> Schema:
        """Return the schema of a message."""
        message = self.messages[name]
        schema: Schema = {"description": self.comments[name, -1], "type": "object", "additionalProperties": False}
        schema["properties"] = {f.name: self.field_schema(message, f, self.comments[name, f.number]) for f in message.field}
        two_spellings = [f for f in message.field if len(_spellings(f)) > 1]
        if two_spellings:
            properties = f"{_pointer(name)}/properties"
            schema["patternProperties"] = {f"^{f.json_name}$": {"$ref": f"{properties}/{f.name}"} for f in two_spellings}
        required = [f for f in message.field if _is_required(f)]
        if names := [f.name for f in required if f not in two_spellings]:
            schema["required"] = names
        if either := [{"anyOf": [{"required": [n]} for n in _spellings(f)]} for f in required if f in two_spellings]:
            schema["allOf"] = either
        if pairs := [*_exclusive_pairs(message), *map(_spellings, two_spellings)]:
            schema["not"] = {"anyOf": [{"required": pair} for pair in pairs]}
        return schema

    def field_schema(self, message: DescriptorProto, field: FieldDescriptorProto, comment: str) -> Schema:
        """Return the schema of a field."""
        entry = next((n for n in message.nested_type if n.options.map_entry and field.type_name.endswith(f".{n.name}")), None)
        if entry is not None:
            value = self._share_schema(field) or self._value_schema(entry.field[1])
            return {"description": comment, "type": "object", "additionalProperties": value}
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return {"description": comment, "type": "array", "items": self._value_schema(field)}
        value = self._share_schema(field) or self._value_schema(field)
        # Draft 7 ignores everything beside a $ref, so the $ref goes into an allOf next to the description.
        return {"description": comment, **({"allOf": [value]} if "$ref" in value else value)}

    def _share_schema(self, field: FieldDescriptorProto) -> Schema | None:
        """Return the schema of a share, in basis points or percent; None for another field."""
        if field.name not in SHARES:
            return None
        return {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 10_000}, {"type": "string", "pattern": _PERCENT}]}

    def _value_schema(self, field: FieldDescriptorProto) -> Schema:
        if field.type_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[field.type_name])
        if field.type_name:
            self.used.add(field.type_name)
            return {"$ref": _pointer(field.type_name)}
        return dict(_SCALARS[field.type])


def _values(enum: EnumDescriptorProto) -> list[str]:
    """Return the names of an enum's values, the short ones first, as files may write them."""
    short = short_values(enum.name, [(v.name, v.number) for v in enum.value])
    return [*short, *(v.name for v in enum.value)]


def _spellings(field: FieldDescriptorProto) -> list[str]:
    """Return the names of a field in files: snake_case, and lowerCamelCase if it differs."""
    return list(dict.fromkeys((field.name, field.json_name)))


def _exclusive_pairs(message: DescriptorProto) -> list[list[str]]:
    """Return every two names that must not be set together, because their fields belong to one oneof."""
    members = [f for f in message.field if f.HasField("oneof_index") and not f.proto3_optional]
    return [
        [a, b]
        for first, second in combinations(members, 2)
        if first.oneof_index == second.oneof_index
        for a in _spellings(first)
        for b in _spellings(second)
    ]


def _is_required(field: FieldDescriptorProto) -> bool:
    behaviors = field.options.Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.REQUIRED in behaviors or field_behavior_pb2.IDENTIFIER in behaviors


def _pointer(name: str) -> str:
    """Return the place of a message or an enum in the schema."""
    return "#" if name == _ROOT else f"#/definitions/{_short(name)}"


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _clean(comment: str) -> str:
    return " ".join(comment.split())
