"""Small files in YAML or JSON, read with the line of each value, which errors name. All errors are reported at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import yaml

from controlplane.errors import Code, Error, did_you_mean

# Largest file.
MAX_CHARACTERS = 1 << 20

T = TypeVar("T")


class InvalidValue(Exception):
    """Ends the reading of a value, whose problem is recorded."""


class FileReader(ABC, Generic[T]):
    """Reads one file, and records what is wrong."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[str] = []

    @abstractmethod
    def read(self, node: Any) -> T:
        """Return the content from the file's root."""

    def parse(self, text: str) -> T:
        """Return the content of a text. Errors: INVALID_ARGUMENT with `file:line` of everything that is wrong."""
        content: T | None = None
        if len(text) > MAX_CHARACTERS:
            self._problems.append(f"{self._file}: is larger than {MAX_CHARACTERS:,} characters")
        else:
            try:
                root = yaml.compose(text, Loader=yaml.SafeLoader)
                if root is None:
                    self._problems.append(f"{self._file}: is empty")
                else:
                    content = self.read(root)
            except InvalidValue:
                pass
            except (yaml.YAMLError, RecursionError) as error:
                mark = getattr(error, "problem_mark", None)
                line = f":{mark.line + 1}" if mark else ""
                reason = getattr(error, "problem", None) or "is nested too deep"
                self._problems.append(f"{self._file}{line}: is not YAML: {reason}")
        if self._problems or content is None:
            raise Error(Code.INVALID_ARGUMENT, "INVALID_FILE", "\n".join(self._problems))
        return content

    def mapping(self, node: Any, at: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the values by key. Record unknown and repeated keys."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, at, "must be a mapping")
        entries: dict[str, Any] = {}
        for key_node, value in node.value:
            key = self.text(key_node, at)
            if known and key not in known:
                hint = did_you_mean(key, known) or f"there are: {', '.join(known)}"
                self.problem(key_node, at, f"unknown key '{key[:80]}'; {hint}")
            elif key in entries:
                self.problem(key_node, at, f"'{key[:80]}' is given twice")
            else:
                entries[key] = value
        return entries

    def items(self, node: Any, at: str) -> list[Any]:
        """Return the values of a list."""
        if not isinstance(node, yaml.SequenceNode):
            self.fail(node, at, "must be a list")
        items: list[Any] = node.value
        return items

    def text(self, node: Any, at: str) -> str:
        """Return a single value as text."""
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            self.fail(node, at, "must be a text")
        return str(node.value)

    def texts(self, node: Any, at: str, problem_of: Callable[[str], str]) -> tuple[str, ...]:
        """Return a list of texts. Record the ones with a problem."""
        texts = []
        for i, item in enumerate(self.items(node, at)):
            text = self.text(item, f"{at}[{i}]")
            if found := problem_of(text):
                self.problem(item, f"{at}[{i}]", f"'{text[:80]}' {found}")
            texts.append(text)
        return tuple(texts)

    def problem(self, node: Any, at: str, description: str) -> None:
        """Record what is wrong with a value. `at` is its path, like `rules[0].role`."""
        place = f"{self._file}:{node.start_mark.line + 1}"
        self._problems.append(": ".join(part for part in (place, at, description) if part))

    def fail(self, node: Any, at: str, description: str) -> Any:
        """Record what is wrong with a value, and stop to read it. Errors: InvalidValue."""
        self.problem(node, at, description)
        raise InvalidValue
