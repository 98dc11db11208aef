"""What is printed, and how: tables for people, the proto's JSON form for programs.

Results go to stdout; progress, notices and errors to stderr. Without a terminal there is no colour and nothing is wrapped
or cut; in one, long cells fold.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import yaml
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from controlplane.cli.document import is_text
from controlplane.errors import escaped
from controlplane.generated.turnout.v1.revision_pb2 import Change, ChangeKind, Impact

# Wider than any line: what is piped is never wrapped.
_UNWRAPPED = 100_000


class Format(StrEnum):
    """The values of --output."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


# What stands in texts of several lines.
_LAYOUT = "\n\t"
# Characters of a client's id or words in a table; of a resource's name, which a client may have made up.
_MOST_SHOWN, _MOST_NAMED = 60, 200
# Names of resources in a refusal, as the API gives them.
_MOST_REPORTED = 100
# Nodes that are named where many do the same.
_FIRST_NODES = 3


class _Console(Console):
    """The one way to the terminal: whatever is printed, no control character gets there but those of colours and bars.

    Reasons, authors, names of nodes and Envoy's words are others'.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped(segment.text, _LAYOUT))


def out() -> Console:
    """Results."""
    return _Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _UNWRAPPED)


def err() -> Console:
    """Everything else."""
    console = _Console(stderr=True, highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else _Console(stderr=True, highlight=False, markup=False, width=_UNWRAPPED)


def notice(text: str) -> None:
    """A line for people, beside the results."""
    err().print(text, style="dim", soft_wrap=True)


def line(text: str | Text = "", style: str | None = None) -> None:
    """A line of the result for people; a terminal folds it."""
    out().print(text, style=style, soft_wrap=True)


def raw(text: str) -> None:
    """Text as it is, with one newline at its end."""
    sys.stdout.write(escaped(text.rstrip("\n"), _LAYOUT) + "\n")
    sys.stdout.flush()


def name(text: str) -> None:
    """A name on a line of its own, however it is made."""
    raw(escaped(text))


def shown(text: str, most: int = _MOST_SHOWN) -> str:
    """A client's id or words in one line: escaped, and cut where they are longer than anybody reads."""
    text = escaped(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def resources(kind: str, names: Sequence[str], most: int = 1) -> str:
    """Resources of a type in one line, the first few. A client that asked for what there is not may have made up both."""
    # The server names so many of a response at most: there may have been more.
    at_least = "at least " if len(names) >= _MOST_REPORTED else ""
    return f"{shown(kind)} {first([shown(name, _MOST_NAMED) for name in names], most, at_least)}"


def first(texts: Sequence[str], most: int, at_least: str = "") -> str:
    """The first few of a list, and how many there are besides: `a, b, c and 997 more`."""
    more = f" and {at_least}{len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def nodes(names: Sequence[str]) -> str:
    """Nodes in one line: a few by name, many as `1,000 nodes (nodes/a, nodes/b, nodes/c and 997 more)`."""
    said = first([shown(name) for name in names], _FIRST_NODES)
    return said if len(names) <= _FIRST_NODES else f"{plural(len(names), 'node')} ({said})"


def words(text: str) -> str:
    """What a client said, escaped; its further lines can't be taken for ours."""
    return escaped(text.strip(), _LAYOUT).replace("\n", "\n    ")


def as_object(message: Message) -> dict[str, Any]:
    """The JSON form of desired state: names as in the proto, only what is set. It can be applied as it is."""
    return MessageToDict(message, preserving_proto_field_name=True)


def as_report(message: Message) -> dict[str, Any]:
    """The JSON form of what is reported: zeros and empty lists are said too."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def data(value: Mapping[str, Any], form: Format, *, one_line: bool = False) -> None:
    """A value as JSON or YAML; `one_line` for streams."""
    if form is Format.YAML:
        raw(("---\n" if one_line else "") + yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))
    else:
        text = json.dumps(value, ensure_ascii=False, indent=None if one_line else 2)
        # Escaped as JSON does it, which knows no `\\U`.
        raw(
            "".join(c if ord(c) < 0x10000 or c.isprintable() else json.dumps(c)[1:-1] for c in text) if _beyond(text) else text
        )


def _beyond(text: str) -> bool:
    return not text.isascii() and max(text) > "\uffff"


class _Dumper(yaml.SafeDumper):
    """Certificates and other long texts as blocks, indented lists, nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Escapes are read back within double quotes only.
    plain = escaped(text, _LAYOUT) == text
    style = '"' if not plain else "|" if "\n" in text else None if is_text(text) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


# Columns of what is never long.
_SHORT = (
    *("TYPE", "REVISION", "WHEN", "STATE", "HOLDS", "SPEAKS", "SEEN", "DID"),
    *("SHARE", "REQ/S", "ERRORS", "OPEN", "NODES", "LAST", "TOTAL"),
)


def table(headings: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> Table:
    """Columns without frames."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        # Names and texts fold where a terminal is narrow; what is short by nature stays in one piece.
        made.add_column(heading, overflow="fold", no_wrap=heading in _SHORT)
    for row in rows:
        # Escaped before the columns are measured.
        made.add_row(*(Text(escaped(cell.plain), cell.style) if isinstance(cell, Text) else escaped(cell) for cell in row))
    return made


def show(renderable: Any) -> None:
    """A table or a group of them."""
    out().print(renderable)


def live(pictures: Iterable[RenderableType]) -> None:
    """Shows each picture in place of the one before; without a terminal, one under the other."""
    console = out()
    if not console.is_terminal:
        for picture in pictures:
            show(picture)
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as shown:
        for picture in pictures:
            shown.update(picture, refresh=True)


# ------------------------------------------------------------------------------------------------------------- words


def share(basis_points: int) -> str:
    """`100%`, `12.5%`, `0.01%`."""
    return f"{basis_points / 100:.2f}".rstrip("0").rstrip(".") + "%"


def split(shares: Mapping[str, int]) -> str:
    """`blue 90%, green 10%`, largest first."""
    return ", ".join(f"{v} {share(s)}" for v, s in sorted(shares.items(), key=lambda p: -p[1]) if s) or "nobody"


def when(stamp: Timestamp) -> str:
    """Local time to the second; empty when unset."""
    if not stamp.seconds:
        return ""
    return datetime.fromtimestamp(stamp.seconds).astimezone().isoformat(" ", "seconds")[:19]


def ago(stamp: Timestamp) -> str:
    """`12s`, `5m`, `3h`, `2d` before now; empty when unset."""
    if not stamp.seconds:
        return ""
    seconds = max(0, int(time.time() - stamp.seconds))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def milliseconds(earlier: Timestamp, later: Timestamp) -> str:
    """Time between two stamps, as people say it."""
    ms = (later.seconds - earlier.seconds) * 1e3 + (later.nanos - earlier.nanos) / 1e6
    if ms < 1000:
        return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"
    return f"{ms / 1e3:.2f} s"


def plural(count: int, noun: str) -> str:
    """`1 node`, `3 nodes`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


_MARKS = {
    ChangeKind.CHANGE_KIND_CREATED: ("+", "green"),
    ChangeKind.CHANGE_KIND_UPDATED: ("~", "yellow"),
    ChangeKind.CHANGE_KIND_DELETED: ("-", "red"),
}


def changes(listed: Sequence[Change], most: int | None = None) -> None:
    """Objects with what became of them, a line a field; only the first `most` objects, if given."""
    console = out()
    for change in listed[:most]:
        mark, colour = _MARKS.get(change.kind, ("?", ""))
        console.print(f"{mark} {change.name}", style=colour, soft_wrap=True)
        for text in change.lines:
            console.print(f"    {text}", soft_wrap=True)
    if most is not None and len(listed) > most:
        console.print(f"and {len(listed) - most:,} more; `turnout diff` shows all")


def impact(given: Impact) -> str:
    """`1 RouteConfiguration, 0 Listeners, 3 nodes`: Listeners are always said, for their change drains connections."""
    parts = []
    for t in given.types:
        if t.changed or (t.type == "Listener" and not t.removed):
            parts.append(plural(t.changed, t.type))
        if t.removed:
            parts.append(f"{plural(t.removed, t.type)} removed")
    if not any(t.type == "Listener" for t in given.types):
        parts.append("0 Listeners")
    parts.append(plural(given.nodes, "node"))
    if given.bytes_per_node:
        parts.append(f"{given.bytes_per_node:,} bytes a node")
    return ", ".join(parts)


def warnings(given: Impact) -> None:
    """What may be a surprise, a line each."""
    for text in given.warnings:
        line(f"Warning: {text}", "yellow")


def summary(listed: Iterable[Change]) -> str:
    """Changes in one cell: `~ models/iris split: blue 10000 -> green 10000`."""
    said = []
    for change in listed:
        mark = _MARKS.get(change.kind, ("?", ""))[0]
        detail = f" {change.lines[0]}" if len(change.lines) == 1 else ""
        said.append(f"{mark} {change.name}{detail}")
    return first(said, 4)


def enum_word(enum: Any, value: int, prefix: str) -> str:
    """`ACTION_SWITCH` as `switch`."""
    return str(enum.Name(value)).removeprefix(prefix).lower() if value in enum.values() else str(value)
