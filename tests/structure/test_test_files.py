"""Each module has a test file of its name, in the folder of tests that mirrors its own."""

from __future__ import annotations

from tests.structure.tree import ROOT, modules

# Modules without a test file of their own, with the reason. An `__init__.py` needs none: it has a docstring and exports.
EXCEPTIONS = {
    "controlplane/cli/schema/generate.py": "tests/cli/test_schema.py covers the whole folder",
    "controlplane/http2/events.py": "a protocol without code",
    "controlplane/xds/events.py": "values without code",
    "controlplane/xds/view.py": "a protocol without code",
    "controlplane/xds_server/context.py": "a value without code",
}


def expected(name: str) -> str:
    """Return the path of the test file of a module."""
    folder, _, file = name.removeprefix("controlplane/").rpartition("/")
    return "/".join(part for part in ("tests", folder, f"test_{file}") if part)


def test_each_module_has_a_test_file_of_its_name() -> None:
    names = [m.name for m in modules() if not m.name.endswith(("__init__.py", "__main__.py"))]
    missing = [n for n in names if n not in EXCEPTIONS and not (ROOT / expected(n)).exists()]
    assert missing == []


def test_exceptions_are_still_needed() -> None:
    assert [n for n in EXCEPTIONS if not (ROOT / n).exists() or (ROOT / expected(n)).exists()] == []


def test_the_name_of_a_test_file() -> None:
    assert expected("controlplane/xds/delta.py") == "tests/xds/test_delta.py"
    assert expected("controlplane/published.py") == "tests/test_published.py"
