"""Docstrings, also those of private functions, are sentences and not clauses. Ruff's D rules check their form."""

from __future__ import annotations

import ast
import re

from tests.structure.tree import modules

# A docstring that starts with one of these is a clause, not a sentence.
CLAUSES = ("What", "Whether", "Who", "Whose", "That", "Of", "Where", "When", "How", "Why", "Which", "As")
# Such a docstring starts like this in the source. Most files have none, and are not parsed.
SUSPICIOUS = re.compile(rf"""["'][\s`*,.:;\\]*({"|".join(CLAUSES)})\b""")


def first_word(text: str) -> str:
    """Return the first word of a docstring."""
    return text.split()[0].strip("`*,.:;") if text.split() else ""


def clauses(tree: ast.Module) -> list[str]:
    """Return `line: first sentence` of each docstring that starts with a clause."""
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
    texts = [(getattr(n, "lineno", 1), ast.get_docstring(n)) for n in nodes]
    return [f"{line}: {text.splitlines()[0]}" for line, text in texts if text and first_word(text) in CLAUSES]


def test_no_docstring_starts_with_a_clause() -> None:
    suspicious = [m for m in modules("controlplane", "tests", "bench") if SUSPICIOUS.search(m.text)]
    assert [f"{m.name}:{clause}" for m in suspicious for clause in clauses(m.tree)] == []


def test_the_docstring_of_a_private_function_is_checked() -> None:
    for text in (
        '"""Whether it is so."""',
        '"""\n    Whether it is so."""',
        "r'Whether it is so.'",
        '"""`Whether` it is so."""',
    ):
        assert SUSPICIOUS.search(f"def _private():\n    {text}")
        assert len(clauses(ast.parse(f"def _private():\n    {text}"))) == 1
    assert clauses(ast.parse('def _private():\n    """Whether it is so."""')) == ["1: Whether it is so."]
    assert clauses(ast.parse('class _C:\n    """Holds things."""')) == []


def test_public_functions_have_docstrings() -> None:
    missing = [
        f"{m.name}:{node.lineno} {node.name}"
        for m in modules()
        for node in m.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert missing == []
