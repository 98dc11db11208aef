"""The contracts on imports (`pyproject.toml`, `[tool.importlinter]`) hold, and each fails when its rule is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.structure.tree import ROOT

CONTRACTS = [c["name"] for c in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]]

# For each contract: the file to change, and the line to append. A missing file is created.
BREAKS = [
    ("layers", "controlplane/domain/model.py", "import controlplane.writer"),
    ("layers", "controlplane/unlisted.py", '"""A module in no layer."""'),
    ("no cycles among siblings", "controlplane/store/sealing.py", "import controlplane.store.codec"),
    ("http2 stands alone", "controlplane/http2/frames.py", "import controlplane.errors"),
    ("http2 stands alone", "controlplane/http2/frames.py", "import grpc"),
    ("stores do not know each other", "controlplane/store/etcd.py", "import controlplane.store.sqlite"),
    ("stores do not know each other", "controlplane/store/codec.py", "import controlplane.store.sqlite"),
    ("cores do no I/O and read no clock", "controlplane/xds/wire.py", "import asyncio"),
    ("cores do no I/O and read no clock", "controlplane/compiler/routes.py", "import time"),
    ("xds knows no desired state", "controlplane/xds/sotw.py", "import controlplane.domain.state"),
    ("xds_server knows no store", "controlplane/xds_server/pump.py", "import controlplane.store.sqlite"),
    # The core does not import `socket` itself, but imports a module that does.
    ("cores do no I/O and read no clock", "controlplane/errors.py", "import socket"),
]


def lint(root: Path) -> str:
    """Return what the linter prints about a tree."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources, which a test may change and must put back."""
    root = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "controlplane", root / "controlplane", ignore=shutil.ignore_patterns("__pycache__", "testdata"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def test_every_contract_is_kept(copy: Path) -> None:
    printed = lint(copy)
    assert [name for name in CONTRACTS if f"{name} KEPT" not in printed] == [], printed


@pytest.mark.parametrize(("contract", "file", "line"), BREAKS)
def test_a_contract_fails_when_its_rule_is_broken(copy: Path, contract: str, file: str, line: str) -> None:
    path = copy / file
    before = path.read_text() if path.exists() else None
    try:
        path.write_text((before or '"""A module."""\n') + f"\n{line}\n")
        printed = lint(copy)
        assert f"{contract} BROKEN" in printed or "Missing layer" in printed or "missing layers" in printed.lower(), printed
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)


def test_every_contract_is_broken_once() -> None:
    assert {contract for contract, _, _ in BREAKS} == set(CONTRACTS)
