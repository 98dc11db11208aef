"""YAML as a tree of values with their lines.

PyYAML's own composer has three problems. It recurses as deep as the text is nested, which crashes the process in its C
version. It keeps only the last of two equal keys. It expands aliases without a limit. So this module builds the tree from the
parser's events, with a limit on depth, an error for a repeated key, and a limit on what aliases expand to. Scalars stay text;
the field that a scalar is for decides its type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from controlplane.cli.exits import file_error

MAX_DEPTH = 64
# Most values that all aliases of a file expand to. A file that shares endpoints or timeouts needs far fewer.
MAX_ALIASED = 100_000

# Tags that are accepted because they change nothing: a value with one of them is read as text, a list or a mapping anyway.
_TAGS = {None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))}

NULLS = ("", "~", "null", "Null", "NULL")
BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")

_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Scalar:
    """A single value, as written in the file."""

    line: int
    text: str
    # True if it was written without quotes, so it may mean a number, true, or null.
    plain: bool
    size: int = 1


@dataclass(slots=True)
class Sequence:
    """A list."""

    line: int
    items: list[Node] = field(default_factory=list)
    size: int = 1


@dataclass(slots=True)
class Mapping:
    """Keys and values, in the order of the file; no key twice."""

    line: int
    entries: dict[str, tuple[Scalar, Node]] = field(default_factory=dict)
    size: int = 1


Node = Scalar | Sequence | Mapping


def is_text(value: str) -> bool:
    """Return True if a value without quotes means text, not a number, true, false or null."""
    return value not in NULLS and value not in BOOLS and not NUMBER.fullmatch(value)


def documents(text: str, file: str) -> list[Node]:
    """Return the documents of a text; an empty document is a null Scalar. Errors: FilesError with the line."""
    try:
        return list(_Composer(text, file).documents())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        cause = " ".join(part for part in (error.context, error.problem) if part)
        raise file_error(file, line, f"is not YAML: {cause}") from None
    except yaml.YAMLError as error:
        raise file_error(file, 1, f"is not YAML: {' '.join(str(error).split())[:200]}") from None


class _Composer:
    """Builds the trees of one text from the parser's events."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        self.anchors: dict[str, Node] = {}
        self.aliased = 0

    def documents(self) -> Iterator[Node]:
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                self.anchors.clear()
                yield self.node(next(self.events), 1)

    def node(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        if depth > MAX_DEPTH:
            raise file_error(self.file, line, f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(str(event.anchor), line)
        if event.tag not in _TAGS:
            raise file_error(self.file, line, f"has the tag '{event.tag[:80]}'; tags are not supported")
        tree: Node
        if isinstance(event, yaml.ScalarEvent):
            tree = Scalar(line, event.value, plain=not (event.style or event.tag))
        elif isinstance(event, yaml.SequenceStartEvent):
            tree = self.sequence(line, depth)
        else:
            tree = self.mapping(line, depth)
        # Register the anchor after its value, so that an alias inside the value is an error and not a cycle.
        if event.anchor:
            self.anchors[event.anchor] = tree
        return tree

    def alias(self, anchor: str, line: int) -> Node:
        if anchor not in self.anchors:
            raise file_error(self.file, line, f"'*{anchor[:80]}' has no anchor before it")
        self.aliased += self.anchors[anchor].size
        if self.aliased > MAX_ALIASED:
            raise file_error(self.file, line, f"aliases expand to more than {MAX_ALIASED:,} values")
        return self.anchors[anchor]

    def sequence(self, line: int, depth: int) -> Sequence:
        sequence = Sequence(line)
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            item = self.node(event, depth + 1)
            sequence.items.append(item)
            sequence.size += item.size
        return sequence

    def mapping(self, line: int, depth: int) -> Mapping:
        mapping = Mapping(line)
        merged: list[Mapping] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise file_error(self.file, key.line, "has a list or a mapping as a key; a key must be a name")
            value = self.node(next(self.events), depth + 1)
            mapping.size += 1 + value.size
            if key.plain and key.text == "<<":
                merged += self.merge_sources(value)
            elif key.text in mapping.entries:
                first = mapping.entries[key.text][0].line
                raise file_error(self.file, key.line, f"'{key.text[:80]}' is given twice; the first is on line {first}")
            else:
                mapping.entries[key.text] = (key, value)
        for source in merged:
            for name, entry in source.entries.items():
                mapping.entries.setdefault(name, entry)
        return mapping

    def merge_sources(self, value: Node) -> list[Mapping]:
        sources = value.items if isinstance(value, Sequence) else [value]
        mappings = [s for s in sources if isinstance(s, Mapping)]
        if len(mappings) != len(sources):
            raise file_error(self.file, value.line, "'<<' can merge only mappings")
        return mappings
