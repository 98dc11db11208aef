"""The cores, and what they import, use only modules that do no I/O. The import contract names the modules that are forbidden;
this list names those that are allowed, so that a module which nobody thought of is found, too.
"""

from __future__ import annotations

import ast

from tests.structure.test_hidden_state import is_core
from tests.structure.tree import Module, modules

ALLOWED = {
    *(
        "__future__",
        "abc",
        "bisect",
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
        "datetime",
        "difflib",
        "enum",
        "functools",
    ),
    *("hashlib", "heapq", "importlib", "ipaddress", "itertools", "re", "typing", "unicodedata", "weakref"),
    # Encodings of values.
    *("json", "yaml", "zlib"),
    # Messages, and the parsing of certificates. `ssl` parses them, too; sockets are never made with it.
    *("cryptography", "envoy", "google", "ssl", "udpa", "validate", "xds"),
}


def imported(module: Module) -> set[str]:
    """Return the full names of the modules that a module imports."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def dotted(module: Module) -> str:
    """Return a module's name as an import spells it."""
    return module.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def foreign(found: list[Module]) -> list[str]:
    """Return `module: import` for each import of the cores, and of what they import, that is not allowed."""
    by_name = {dotted(m): m for m in found}
    pending, seen = [m for m in found if is_core(m)], set()
    problems = []
    while pending:
        module = pending.pop()
        if module.name in seen:
            continue
        seen.add(module.name)
        for name in imported(module):
            if name in by_name:
                pending.append(by_name[name])
            elif not name.startswith("controlplane") and name.split(".")[0] not in ALLOWED:
                problems.append(f"{module.name}: {name}")
    return sorted(problems)


def test_cores_import_only_what_is_allowed() -> None:
    assert foreign(modules()) == []


def test_what_is_not_allowed_is_found() -> None:
    module = next(m for m in modules() if m.name == "controlplane/xds/wire.py")
    changed = Module(module.path)
    vars(changed)["tree"] = ast.parse(module.text + "\nimport urllib.request\n")
    assert foreign([changed]) == ["controlplane/xds/wire.py: urllib.request"]
