"""The cores keep no state in their modules: a cache is an object with an owner and a bound."""

from __future__ import annotations

import ast

import pytest

from tests.structure.tree import Module, modules

CORES = (
    "access",
    "domain",
    "snapshot.py",
    "envoy_types.py",
    "compiler",
    "xds",
    "fleet",
    "traffic.py",
    "published.py",
    "problems",
    "versions",
)

_CONTAINERS = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
_MUTATORS = ("append", "add", "update", "setdefault", "pop", "popitem", "clear", "extend", "insert", "discard", "remove")
# Calls whose result never changes.
_FROZEN = {
    "TypeVar",
    "TypeAdapter",
    "frozenset",
    "tuple",
    "compile",
    "Struct",
    "partial",
    "MappingProxyType",
    "range",
    "NewType",
    "float",
    "bytes",
    "sorted",
    "len",
    "max",
}


def is_core(module: Module) -> bool:
    """Return True if a module belongs to a core."""
    return module.name.split("/")[1] in CORES


def hidden_state(tree: ast.Module) -> list[str]:
    """Return `line: reason` for each value or cache of a module that may change while the program runs."""
    problems = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            problems.append(f"{node.lineno}: global {', '.join(node.names)}")
        if isinstance(node, ast.FunctionDef) and any(_is_cache(d) for d in node.decorator_list):
            problems.append(f"{node.lineno}: {node.name} has a cache that nobody owns")
    for node in tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        names = [t.id for t in targets if isinstance(t, ast.Name)]
        constant = all(name.strip("_").isupper() for name in names)
        if isinstance(value, _CONTAINERS) and not constant and names != ["__all__"]:
            problems.append(f"{node.lineno}: {', '.join(names)} is a container with the name of a variable")
        if isinstance(value, ast.Call) and not constant and _called(value) not in _FROZEN:
            problems.append(f"{node.lineno}: {', '.join(names)} is created by {_called(value)}()")
    return problems


def mutations(tree: ast.Module) -> list[str]:
    """Return `line: name` for each place that changes a container of the module or of a class: constants are never changed."""
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    names = {
        target.id
        for body in bodies
        for node in body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    changed = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del)
    ] + [
        node.func.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS
    ]
    return [
        f"{value.lineno}: {name}"
        for value in changed
        if (name := value.id if isinstance(value, ast.Name) else getattr(value, "attr", "")) in names and name.isupper()
    ]


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_cache(decorator: ast.expr) -> bool:
    inner = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (inner.attr if isinstance(inner, ast.Attribute) else getattr(inner, "id", "")) in ("cache", "lru_cache")


def test_cores_have_no_hidden_state() -> None:
    assert [f"{m.name}:{why}" for m in modules() if is_core(m) for why in hidden_state(m.tree)] == []


def test_cores_change_no_constant() -> None:
    assert [f"{m.name}:{where}" for m in modules() if is_core(m) for where in mutations(m.tree)] == []


@pytest.mark.parametrize(
    "source",
    [
        "_MEMO = {}\ndef f(k):\n    _MEMO[k] = 1",
        "_MEMO: dict[str, str] = {}\ndef f(k):\n    return _MEMO.setdefault(k, '')",
        "class C:\n    SEEN = set()\n    def f(self, k):\n        self.SEEN.add(k)",
        "_MEMO = {}\ndef f(k):\n    del _MEMO[k]",
    ],
)
def test_a_changed_constant_is_found(source: str) -> None:
    assert mutations(ast.parse(source))


def test_cores_do_not_ask_for_the_time() -> None:
    """Cores may convert times with `datetime`, so the import contract allows that module."""
    asking = {"now", "today", "utcnow", "monotonic", "perf_counter", "time_ns"}
    calls = [(m, n) for m in modules() if is_core(m) for n in ast.walk(m.tree) if isinstance(n, ast.Call)]
    assert [f"{m.name}:{n.lineno}" for m, n in calls if isinstance(n.func, ast.Attribute) and n.func.attr in asking] == []


@pytest.mark.parametrize(
    "source",
    [
        "_memo = {}",
        "_memo: dict[str, int] = {}",
        "_count = itertools.count(1)",
        "book = Book()",
        "def f():\n    global x\n    x = 1",
        "@lru_cache(maxsize=10)\ndef f(): ...",
        "@functools.cache\ndef f(): ...",
    ],
)
def test_hidden_state_is_found(source: str) -> None:
    assert hidden_state(ast.parse(source))


@pytest.mark.parametrize("source", ["TABLE = {1: 2}", "_NAME = re.compile('x')", "T = TypeVar('T')", "Alias = dict[str, int]"])
def test_constants_are_allowed(source: str) -> None:
    assert not hidden_state(ast.parse(source))
