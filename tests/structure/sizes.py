"""The limits on sizes, and a command that prints the largest modules, functions and classes.

    module      at most 500 lines
    function    at most 60 lines, its signature and docstring included
    class       at most 20 methods, properties and private methods included

Run it with `python -m tests.structure.sizes` or `make sizes`. The exit status is 1 if a size is above its limit, except for
those in EXCEPTIONS.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from typing import NamedTuple

from tests.structure.tree import Module, length, methods, modules

MODULE_LINES, FUNCTION_LINES, CLASS_METHODS = 500, 60, 20

# By the name that the command prints: the reason why it may be above its limit.
EXCEPTIONS: dict[str, str] = {}

MAX_EXCEPTIONS = 10
# Classes that may never be exceptions.
NO_EXCEPTION = ("Stream", "Connection", "Subscription", "SocketTransport")

_SHOWN = 8


class Size(NamedTuple):
    """One module, function or class, and its size."""

    name: str
    size: int
    limit: int

    @property
    def over(self) -> bool:
        """Return True if the size is above its limit and is not an exception."""
        return self.size > self.limit and self.name not in EXCEPTIONS


def module_sizes(checked: list[Module]) -> Iterator[Size]:
    """Yield each module with its number of lines."""
    yield from (Size(m.name, len(m.text.splitlines()), MODULE_LINES) for m in checked)


def function_sizes(checked: list[Module]) -> Iterator[Size]:
    """Yield each function with its number of lines."""
    for module in checked:
        for owner in ast.walk(module.tree):
            for node in ast.iter_child_nodes(owner):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    prefix = f"{owner.name}." if isinstance(owner, ast.ClassDef) else ""
                    yield Size(f"{module.name}:{prefix}{node.name}", length(node), FUNCTION_LINES)


def class_sizes(checked: list[Module]) -> Iterator[Size]:
    """Yield each class with its number of methods."""
    for module in checked:
        yield from (Size(f"{module.name}:{c.name}", len(methods(c)), CLASS_METHODS) for c in module.classes())


def main() -> int:
    """Print the largest of each kind. Return 1 if one is over its limit."""
    checked = modules()
    failed = False
    for title, sizes in (
        ("modules, lines", module_sizes(checked)),
        ("functions, lines", function_sizes(checked)),
        ("classes, methods", class_sizes(checked)),
    ):
        largest = sorted(sizes, key=lambda s: -s.size)
        over = [s for s in largest if s.over]
        failed = failed or bool(over)
        print(f"{title}: at most {largest[0].limit}")
        for size in largest[: max(_SHOWN, len(over))]:
            mark = "  OVER" if size.over else f"  exception: {EXCEPTIONS[size.name]}" if size.size > size.limit else ""
            print(f"  {size.size:5}  {size.name}{mark}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
