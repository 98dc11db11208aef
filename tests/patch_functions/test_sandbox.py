"""The limits of a process. Each test runs in a process of its own, because limits can't be removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.patch_functions.sandbox import unenforced

LINUX = pytest.mark.skipif(bool(unenforced()), reason=unenforced())
# Code that a limited child and a limited call are refused, and the type of the error.
NEITHER = [
    ("socket.socket()", "PermissionError"),
    ("os.execv('/bin/true', ['true'])", "PermissionError"),
    ("open('turnout-test-sandbox', 'wb', 0).write(b'x')", "Error"),
    ("bytearray(300 << 20)", "MemoryError"),
]
# Code that only a call is refused.
CALL = [
    ("open('/etc/hosts')", "PermissionError"),
    ("os.fork()", "PermissionError"),
    ("os.kill(os.getppid(), 0)", "PermissionError"),
    ("time.sleep(0.1)", "PermissionError"),
    ("os.urandom(1)", "Error"),
    ("threading.Thread(target=print).start()", "RuntimeError"),
]


def errors(folder: Path, limit: str, lines: list[str]) -> list[str]:
    """Return the name of the error of each line of code in a limited process; "" without an error."""
    code = f"""
import os, socket, threading, time
from controlplane.patch_functions import sandbox
{limit}
for line in {lines!r}:
    try:
        eval(line)
        os.write(1, b"\\n")
    except BaseException as error:
        os.write(1, type(error).__name__.encode() + b"\\n")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder, env=environment
    ).stdout.splitlines()


@LINUX
def test_a_child_has_no_network_no_programs_no_files_to_write_and_little_memory(tmp_path: Path) -> None:
    found = errors(tmp_path, "sandbox.limit_child()", [code for code, _ in NEITHER])
    assert all(wanted in name for name, (_, wanted) in zip(found, NEITHER, strict=True)), found


@LINUX
def test_a_call_can_do_nothing_but_compute(tmp_path: Path) -> None:
    code = [*NEITHER, *CALL]
    found = errors(tmp_path, "sandbox.limit_child(); sandbox.limit_call()", [line for line, _ in code])
    assert all(wanted in name for name, (_, wanted) in zip(found, code, strict=True)), found
    assert errors(tmp_path, "sandbox.limit_child(); sandbox.limit_call()", ["sum(range(10 ** 6))", "bytearray(50 << 20)"]) == [
        "",
        "",
    ]


def test_a_call_ends_after_a_second_of_cpu_time() -> None:
    code = "from controlplane.patch_functions import sandbox\nsandbox.limit_call()\nwhile True: pass"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode < 0
