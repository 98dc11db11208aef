"""YAML as values that know their line.

PyYAML's composer recurses as deep as the text says (its C form then crashes the process), keeps only the last of two equal
keys, and expands aliases without end. So the tree is built here, from the parser's events: a depth limit, an error for a
key given twice, and a bound on what aliases expand to. Scalars stay text: which type they have is decided by the field
they are for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from controlplane.cli.exits import FilesError, Place, Problem

MAX_DEPTH = 64
# Values that aliases may stand for, all together. An honest file that shares endpoints or timeouts stays far below.
MAX_ALIASED = 100_000

# Tags that say what is meant anyway. None of them makes anything but text here.
_TAGS = {None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))}

NULLS = ("", "~", "null", "Null", "NULL")
BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")

_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Scalar:
    """A single value, as written."""

    line: int
    text: str
    # Without quotes, so that it may mean a number, true, or null.
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


def is_text(written: str) -> bool:
    """Whether it is taken for text without quotes, and not for a number, a truth value, or nothing."""
    return written not in NULLS and written not in BOOLS and not NUMBER.fullmatch(written)


def documents(text: str, file: str) -> list[Node]:
    """The documents of a text; a blank one is a null Scalar. Errors: FilesError with the line."""
    try:
        return list(_Composer(text, file).documents())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise _wrong(file, line, f"is not YAML: {what}") from None
    except yaml.YAMLError as error:
        raise _wrong(file, 1, f"is not YAML: {' '.join(str(error).split())[:200]}") from None


def _wrong(file: str, line: int, description: str) -> FilesError:
    return FilesError([Problem(Place(file, line), "", description)])


class _Composer:
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
            raise _wrong(self.file, line, f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(str(event.anchor), line)
        if event.tag not in _TAGS:
            raise _wrong(self.file, line, f"has the tag '{event.tag[:80]}'; tags are not used here")
        made: Node
        if isinstance(event, yaml.ScalarEvent):
            made = Scalar(line, event.value, plain=not (event.style or event.tag))
        elif isinstance(event, yaml.SequenceStartEvent):
            made = self.sequence(line, depth)
        else:
            made = self.mapping(line, depth)
        # Only now: an alias inside of what it stands for finds nothing.
        if event.anchor:
            self.anchors[event.anchor] = made
        return made

    def alias(self, anchor: str, line: int) -> Node:
        if anchor not in self.anchors:
            raise _wrong(self.file, line, f"'*{anchor[:80]}' stands for nothing that was defined before it")
        self.aliased += self.anchors[anchor].size
        if self.aliased > MAX_ALIASED:
            raise _wrong(self.file, line, f"aliases stand for more than {MAX_ALIASED:,} values")
        return self.anchors[anchor]

    def sequence(self, line: int, depth: int) -> Sequence:
        made = Sequence(line)
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            item = self.node(event, depth + 1)
            made.items.append(item)
            made.size += item.size
        return made

    def mapping(self, line: int, depth: int) -> Mapping:
        made = Mapping(line)
        merged: list[Mapping] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise _wrong(self.file, key.line, "has a list or a mapping as a key; keys are names")
            value = self.node(next(self.events), depth + 1)
            made.size += 1 + value.size
            if key.plain and key.text == "<<":
                merged += self.merge_sources(value)
            elif key.text in made.entries:
                first = made.entries[key.text][0].line
                raise _wrong(self.file, key.line, f"'{key.text[:80]}' is given twice, on line {first} already")
            else:
                made.entries[key.text] = (key, value)
        for source in merged:
            for name, entry in source.entries.items():
                made.entries.setdefault(name, entry)
        return made

    def merge_sources(self, value: Node) -> list[Mapping]:
        sources = value.items if isinstance(value, Sequence) else [value]
        mappings = [s for s in sources if isinstance(s, Mapping)]
        if len(mappings) != len(sources):
            raise _wrong(self.file, value.line, "'<<' merges mappings, and nothing else")
        return mappings
