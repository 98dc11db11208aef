"""The API's messages as JSON and YAML.

`-o json` prints protojson: field names in lowerCamelCase, 64-bit integers as strings, times in RFC 3339. `-o yaml` prints the
same values under the field names that files of desired state use (snake_case). Two forms of a message exist:

    report()    every field, zeros and empty lists included, so that a program can rely on the keys
    desired()   only the fields that are set, so that `turnout apply` can read it back
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from controlplane.cli.document import is_text
from controlplane.cli.options import resource
from controlplane.cli.output import LAYOUT, Format, raw
from controlplane.domain.collections import COLLECTIONS
from controlplane.errors import escaped
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest


def report(message: Message, form: Format) -> dict[str, Any]:
    """Return a message with every field, zeros and empty lists included."""
    return MessageToDict(message, preserving_proto_field_name=form is Format.YAML, always_print_fields_with_no_presence=True)


def reports(messages: Iterable[Message], form: Format) -> list[dict[str, Any]]:
    """Return several messages with every field."""
    return [report(message, form) for message in messages]


def desired(message: Message, form: Format) -> dict[str, Any]:
    """Return an object of desired state with the fields that are set, as `turnout apply` reads it."""
    return MessageToDict(message, preserving_proto_field_name=form is Format.YAML)


def object_names(manifest: Manifest) -> list[str]:
    """Return the resource names of all objects, in the order of the table of nouns. Files may leave out the collection."""
    return [resource(row.name, obj.name) for row in COLLECTIONS for obj in getattr(manifest, row.name)]


def key(name: str, form: Format) -> str:
    """Return a snake_case name as it is written in this format: `needs_force` is `needsForce` in JSON."""
    return name if form is Format.YAML else re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def print_data(value: Mapping[str, Any], form: Format, *, one_line: bool = False) -> None:
    """Print a value as JSON or YAML. `one_line` prints one document of a stream."""
    if form is Format.YAML:
        raw(("---\n" if one_line else "") + yaml_text(value))
        return
    text = json.dumps(value, ensure_ascii=False, indent=None if one_line else 2)
    if not text.isascii() and max(text) > "\uffff":
        # `raw` escapes with `\\U`, which JSON does not know, so escape these characters as JSON does.
        text = "".join(c if ord(c) < 0x10000 or c.isprintable() else json.dumps(c)[1:-1] for c in text)
    raw(text)


def yaml_text(value: Mapping[str, Any]) -> str:
    """Return a value as YAML."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


class _Dumper(yaml.SafeDumper):
    """Write long texts such as certificates as blocks, indent lists, and use no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    needs_escapes = escaped(text, LAYOUT) != text
    # YAML reads escapes only within double quotes.
    style = '"' if needs_escapes else "|" if "\n" in text else None if is_text(text) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
