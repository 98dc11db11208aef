"""Programs outside Python that some tests need, such as Go and curl.

A machine may lack one: the test is skipped there, and the reason names the program. In CI (`CI=true`) nothing may be missing,
so the same test fails. When two processes of the suite need the same tool or packages, one of them builds or installs, and the
other waits.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI. `reason` says what is missing and what is not tested without it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI=true, so this is a failure and not a skip)", pytrace=False)
    pytest.skip(reason)


def program(name: str, use: str) -> str:
    """Return the path of a program on PATH. `use` says what the test needs it for."""
    path = shutil.which(name)
    if path is None:
        missing(f"`{name}` is not on PATH: {use}")
    return path


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Run the block while no other process runs a block with this file. The kernel frees the lock when a process ends."""
    with file.open("ab") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        yield


def go_tool(module: Path, tool: str, output: Path, timeout: float = 110, **environment: str) -> Path:
    """Build a tool that a Go module pins, unless it was built after the module last changed, and return its path."""
    go = program("go", f"it builds {tool}")
    pinned = max((module / name).stat().st_mtime for name in ("go.mod", "go.sum"))
    output.parent.mkdir(parents=True, exist_ok=True)
    with alone(output.with_name(f"{output.name}.lock")):  # Go itself locks go.mod
        if not output.exists() or output.stat().st_mtime < pinned:
            run([go, "build", "-o", str(output), tool], module, timeout, **environment)
    return output


def npm_modules(folder: Path) -> None:
    """Install what the folder's package-lock.json pins, unless that was done after the file last changed."""
    npm = program("npm", f"it installs the packages of {folder.name}")
    program("node", f"it runs {folder.name}")
    installed = folder / "node_modules" / ".package-lock.json"
    with alone(folder / "package-lock.json"):
        if not installed.exists() or installed.stat().st_mtime < (folder / "package-lock.json").stat().st_mtime:
            run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
            installed.touch()


def run(command: list[str], folder: Path, timeout: float = 110, **environment: str) -> str:
    """Run a command in a folder and return what it wrote to stdout. The test fails when the command does."""
    completed = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=timeout, check=False
    )
    if completed.returncode:
        output = (completed.stderr + completed.stdout).strip()
        pytest.fail(f"`{' '.join(command)}` in {folder} failed: {output[-1500:]}", pytrace=False)
    return completed.stdout
