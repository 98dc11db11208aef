"""The table of nouns, and the texts that are derived from it. No other module may spell a collection's name, except:

- in a docstring, a comment or generated code;
- in the class of the noun, which names its own collection;
- if the literal is the name of something else, listed in `EXCEPTIONS` with the reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import controlplane
from controlplane.domain import Gateway, Model, Object, Secret
from controlplane.domain.collections import (
    BY_NAME,
    BY_NOUN,
    COLLECTIONS,
    alternatives,
    parse_name,
    resource_name,
)
from controlplane.errors import Code

ROOT = Path(controlplane.__file__).parent

# Folders and modules that follow the rule. The command line and the demo do not: they are clients, and use the API's names.
CHECKED = (
    "api",
    "domain",
    "store",
    "compiler",
    "xds",
    "xds_server",
    "workers",
    "reconciler",
    "writer.py",
    "published.py",
    "fleet",
    "traffic.py",
    "snapshot.py",
    "errors.py",
    "app.py",
)

# Module -> the literals that are not the name of a collection there.
EXCEPTIONS = {
    # The field of a model that lists its gateways.
    "domain/model.py": {"gateways", "gateways["},
    "api/convert/model.py": {"gateways["},
    # Fields of requests with names of objects.
    "api/audit_interceptor.py": {"models"},
    # An example in an error text.
    "api/manifests.py": {", like models/NAME"},
    # The field of a request that lists models.
    "api/status_service.py": {"models["},
    "api/revision_service.py": {", like models/NAME"},
    # The field of Ollama's list of models.
    "compiler/body_routing.py": {"models"},
    # The field of KServe's list of models.
    "compiler/own_answers.py": {"models"},
    # A field of Envoy's `static_resources`.
    "compiler/static_bootstrap.py": {"secrets"},
}


def test_rows_are_found_by_name_and_by_class() -> None:
    assert [row.name for row in COLLECTIONS] == ["gateways", "models", "secrets"]
    assert all(BY_NAME[row.name] is BY_NOUN[row.noun] is row for row in COLLECTIONS)
    assert {row.noun for row in COLLECTIONS} == set(Object.__args__)


@pytest.mark.parametrize(("noun", "name"), [(Gateway, "gateways/x"), (Model, "models/x"), (Secret, "secrets/x")])
def test_a_resource_name_is_built_and_parsed(noun: type[Object], name: str) -> None:
    assert resource_name(noun, "x") == name
    assert parse_name(name) == (BY_NOUN[noun], "x")


@pytest.mark.parametrize("name", ["", "models", "models/", "/x", "nodes/x", "Models/x"])
def test_other_texts_are_not_resource_names(name: str) -> None:
    assert parse_name(name) is None


def test_error_texts_use_the_words_of_the_table() -> None:
    assert alternatives() == "gateway, model or secret"
    row = BY_NOUN[Model]
    assert row.existing([]) == "there are no models yet"
    assert row.existing(["b", "a"]) == "there are: a, b"
    assert row.existing(f"m{i}" for i in range(10)).endswith("m7 and 2 more")
    error = row.not_found("x", ["a"])
    assert (error.code, error.message) == (Code.NOT_FOUND, "models/x does not exist; there are: a")
    assert error.metadata == {"name": "models/x"}


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each string of a module that may be a collection's name. Docstrings are left out."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    own_name = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "collection"
    }
    names = "|".join(BY_NAME)
    spelled = re.compile(rf"(?:{names})(?:\[|$)|.*\b(?:{names})/", re.DOTALL)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in docstrings | own_name:
            continue
        if isinstance(node.value, str) and spelled.match(node.value):
            yield node.lineno, node.value


def modules() -> list[Path]:
    """Return the modules that follow the rule."""
    return sorted(
        path
        for name in CHECKED
        for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
        if path != ROOT / "domain" / "collections.py"
    )


def test_no_other_module_spells_the_name_of_a_collection() -> None:
    assert len(modules()) > 50
    violations = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for path in modules()
        for line, text in literals(path)
        if text not in EXCEPTIONS.get(str(path.relative_to(ROOT)), ())
    ]
    assert violations == []


def test_each_exception_is_needed() -> None:
    for module, texts in EXCEPTIONS.items():
        assert texts == {text for _, text in literals(ROOT / module)}


def test_the_check_finds_literals_and_skips_docstrings(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""gateways/x"""\nA = "models"\nB = f"secrets/{A}"\nC = "an instance of models/x"\nD = "remodels"\n')
    assert sorted(line for line, _ in literals(module)) == [2, 3, 4]
