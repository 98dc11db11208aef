"""A program that ends with the process that started it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from controlplane.workers.die_with_parent import die_with_parent
from tests.workers.rig import until

# Start a program that never ends, write its process id, and wait.
PARENT = """
import subprocess, sys
from controlplane.workers.die_with_parent import die_with_parent
program = "import time; print('up', flush=True); time.sleep(600)"
child = subprocess.Popen(die_with_parent([sys.executable, "-c", program]), stdout=subprocess.PIPE)
assert child.stdout is not None
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_program_runs_under_the_same_process_id_with_its_arguments() -> None:
    program = "import os, sys; print(os.getpid(), sys.argv[1:])"
    process = subprocess.Popen(die_with_parent([sys.executable, "-c", program, "a b", "c"]), stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=30)
    assert out == f"{process.pid} ['a b', 'c']\n"
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process to its parent")
@pytest.mark.parametrize("stopped", [False, True])
async def test_the_program_ends_when_its_parent_is_killed(stopped: bool) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    if stopped:
        os.kill(child, signal.SIGSTOP)
    parent.kill()
    await parent.wait()
    await until(lambda: not exists(child))


def test_other_systems_run_the_program_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert die_with_parent(("sleep", "1")) == ["sleep", "1"]
