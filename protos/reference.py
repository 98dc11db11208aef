"""Write docs/api.md from the protos and their comments: `python -m protos.reference`, from the repository's root.

The page is `reference.head.md`, then each service with its RPCs and their messages, then the other messages and the enums.
The same protos give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from google.api import field_behavior_pb2, resource_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)

from controlplane.cli.schema.__main__ import compiled

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "api.md"

_PACKAGE = "turnout.v1"

# Numbers of the fields of descriptor.proto that lead to a declaration: (kind in the file, index, kind in that, index).
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_FIELD, _METHOD, _VALUE, _ONEOF = 2, 2, 2, 8

_SCALARS = {
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_DOUBLE: "double",
    FieldDescriptorProto.TYPE_INT32: "int32",
    FieldDescriptorProto.TYPE_INT64: "int64",
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_UINT32: "uint32",
}


D = TypeVar("D")


@dataclass(frozen=True)
class Entry(Generic[D]):
    """A declaration and its comment; `comments` are those of what it declares, by the path from here in descriptor.proto."""

    descriptor: D
    comment: str
    comments: dict[tuple[int, ...], str]


class Declarations:
    """The services, messages and enums of the package."""

    def __init__(self, files: FileDescriptorSet) -> None:
        self.services: list[Entry[ServiceDescriptorProto]] = []
        self.messages: dict[str, Entry[DescriptorProto]] = {}
        self.enums: dict[str, Entry[EnumDescriptorProto]] = {}
        for file in sorted((f for f in files.file if f.package == _PACKAGE), key=lambda f: f.name):
            comments = {tuple(at.path): " ".join(at.leading_comments.split()) for at in file.source_code_info.location}
            self.services += (_entry(s, (_SERVICE, i), comments) for i, s in enumerate(file.service))
            self.messages |= {m.name: _entry(m, (_MESSAGE, i), comments) for i, m in enumerate(file.message_type)}
            self.enums |= {e.name: _entry(e, (_ENUM, i), comments) for i, e in enumerate(file.enum_type)}


def _entry(descriptor: D, path: tuple[int, int], comments: dict[tuple[int, ...], str]) -> Entry[D]:
    below = {p[2:]: text for p, text in comments.items() if p[:2] == path and len(p) > 2}
    return Entry(descriptor, comments.get(path, ""), below)


def page(files: FileDescriptorSet, head: str) -> str:
    """Return the text of the page."""
    declarations = Declarations(files)
    blocks = [head.strip(), "## Services"]
    for service in declarations.services:
        blocks += _service(service, declarations)
    methods = [m for s in declarations.services for m in s.descriptor.method]
    of_methods = {_short(name) for m in methods for name in (m.input_type, m.output_type)}
    blocks.append("## Messages")
    for name, message in sorted(declarations.messages.items()):
        if name not in of_methods:
            blocks += _message(message, "###")
    blocks.append("## Enums")
    for _, enum in sorted(declarations.enums.items()):
        blocks += _enum(enum)
    return "\n\n".join(blocks) + "\n"


def _service(service: Entry[ServiceDescriptorProto], declarations: Declarations) -> Iterator[str]:
    yield f"### {service.descriptor.name}"
    yield service.comment
    for i, method in enumerate(service.descriptor.method):
        yield from _method(method, service.comments.get((_METHOD, i), ""))
        for name in (_short(method.input_type), _short(method.output_type)):
            yield from _message(declarations.messages[name], "#####")


def _method(method: MethodDescriptorProto, comment: str) -> Iterator[str]:
    yield f"#### {method.name}"
    request, response = _short(method.input_type), _short(method.output_type)
    stream = "stream of " if method.server_streaming else ""
    effects = "no side effects" if method.options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS else "has side effects"
    yield f"[{request}](#{request.lower()}) → {stream}[{response}](#{response.lower()}); {effects}."
    text, _, errors = comment.partition(" Errors: ")
    yield text
    if errors:
        yield "Errors:\n" + "\n".join(f"- {e}" for e in errors.rstrip(".").split("; "))


def _message(message: Entry[DescriptorProto], level: str) -> Iterator[str]:
    descriptor = message.descriptor
    yield f"{level} {descriptor.name}"
    yield message.comment
    resource = descriptor.options.Extensions[resource_pb2.resource]
    if resource.type:
        patterns = ", ".join(f"`{p}`" for p in resource.pattern)
        yield f"Resource `{resource.type}`, named {patterns}."
    if descriptor.field:
        rows = (
            (f"`{f.name}`", _type(descriptor, f), _behavior(f), message.comments.get((_FIELD, i), ""))
            for i, f in enumerate(descriptor.field)
        )
        yield _table(("field", "type", "behavior", "description"), rows)
    for i in range(len(descriptor.oneof_decl)):
        members = [f for f in descriptor.field if f.HasField("oneof_index") and f.oneof_index == i]
        if not members[0].proto3_optional:
            names = ", ".join(f"`{f.name}`" for f in members)
            yield f"At most one of {names} is set. {message.comments.get((_ONEOF, i), '')}"


def _enum(enum: Entry[EnumDescriptorProto]) -> Iterator[str]:
    yield f"### {enum.descriptor.name}"
    yield enum.comment
    rows = ((f"`{v.name}`", str(v.number), enum.comments.get((_VALUE, i), "")) for i, v in enumerate(enum.descriptor.value))
    yield _table(("value", "number", "description"), rows)


def _type(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    entry = next((n for n in message.nested_type if n.options.map_entry and field.type_name.endswith(f".{n.name}")), None)
    if entry is not None:
        return f"map of {_type(entry, entry.field[0])} to {_type(entry, entry.field[1])}"
    if field.type_name.startswith(f".{_PACKAGE}."):
        name = _short(field.type_name)
        name = f"[{name}](#{name.lower()})"
    else:
        name = field.type_name.removeprefix(".") or _SCALARS[field.type]
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    return f"{'repeated ' if repeated else ''}{name}"


def _behavior(field: FieldDescriptorProto) -> str:
    behaviors = field.options.Extensions[field_behavior_pb2.field_behavior]
    return ", ".join(field_behavior_pb2.FieldBehavior.Name(b).lower().replace("_", " ") for b in behaviors)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def rendered(protos: Path) -> str:
    """Return the page that belongs to the protos in a folder."""
    return page(compiled(protos, "turnout/v1/*_service.proto"), (HERE / "reference.head.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(rendered(HERE), encoding="utf-8")
