"""The source tree, as the checks of this folder read it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One Python file of `controlplane/`. Generated files are excluded."""

    path: Path

    @property
    def name(self) -> str:
        """Return its path from the repository's root, like `controlplane/xds/delta.py`."""
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        """Return its source."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Return its syntax tree."""
        return ast.parse(self.text)

    def classes(self) -> Iterator[ast.ClassDef]:
        """Yield its classes, nested ones too."""
        yield from (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))

    def functions(self) -> Iterator[Function]:
        """Yield its functions and methods, nested ones too."""
        yield from (node for node in ast.walk(self.tree) if isinstance(node, Function))


def modules(*folders: str) -> list[Module]:
    """Return every module below the folders, by path; generated ones excluded. By default those of `controlplane/`."""
    return _below(folders) if folders else list(_controlplane())


@cache
def _controlplane() -> list[Module]:
    """Return the modules of `controlplane/`. Most checks read their trees, so each is parsed once."""
    return _below(("controlplane",))


def _below(folders: tuple[str, ...]) -> list[Module]:
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [Module(path) for path in paths if not {"generated", "node_modules", "build"} & set(path.parts)]


def methods(owner: ast.ClassDef) -> list[Function]:
    """Return the methods of a class, properties and private methods included."""
    return [node for node in owner.body if isinstance(node, Function)]


def length(node: Function | ast.ClassDef) -> int:
    """Return the number of lines of a function or class, decorators excluded."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1
