"""Actions that only one module may take."""

from __future__ import annotations

import ast

from tests.structure.tree import Module, modules


def calls_of(method: str, module: Module) -> bool:
    """Return True if a module calls a method of this name."""
    return any(
        isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == method for n in ast.walk(module.tree)
    )


def test_only_the_writer_commits() -> None:
    outside = [m.name for m in modules() if calls_of("commit", m) and not m.name.startswith("controlplane/store/")]
    assert outside == ["controlplane/writer.py"]
