"""The package depends on nothing else of the project, and not on gRPC."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from controlplane import http2

_IMPORTS = """
import importlib, pkgutil, sys
import controlplane.http2 as package
for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"controlplane.http2.{module.name}")
print(*sorted(sys.modules))
"""

# Modules without a test file of their name, and the reason.
_UNTESTED = {"events": "declarations only"}


def test_the_package_imports_nothing_else_of_the_project_and_no_grpc() -> None:
    completed = subprocess.run([sys.executable, "-c", _IMPORTS], capture_output=True, text=True, check=True, timeout=60)
    imported = completed.stdout.split()
    ours = {name for name in imported if name.partition(".")[0] == "controlplane"}
    assert ours - {name for name in ours if name.startswith("controlplane.http2.")} == {"controlplane", "controlplane.http2"}
    assert not {"grpc", "structlog", "google.protobuf", "h2"} & set(imported)


def test_each_module_has_a_test_file_and_is_in_the_readme() -> None:
    package, tests = Path(http2.__file__).parent, Path(__file__).parent
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert {name for name in modules if not (tests / f"test_{name}.py").exists()} == set(_UNTESTED)
    readme = (package / "README.md").read_text()
    assert [name for name in sorted(modules) if f"{name}.py" not in readme] == []
