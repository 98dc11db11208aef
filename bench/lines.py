"""Programs that the benchmarks drive by JSON, one object a line; and the CPU, memory and files of processes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import resource
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_BUILT = _HERE / "build"


class Lines:
    """A child process that reads commands from its standard input and answers on its standard output.

    It ends when its input ends.
    """

    def __init__(self, name: str, child: asyncio.subprocess.Process, hello: dict[str, Any]) -> None:
        self.name = name
        self.pid = child.pid
        self.hello = hello  # its first line
        self._child = child

    @staticmethod
    @asynccontextmanager
    async def start(name: str, command: Sequence[str], log: Path, cwd: Path | None = None) -> AsyncIterator[Lines]:
        """Start a child in the folder `cwd`, or in this process's, and end it."""
        with log.open("ab") as errors:
            pipe = asyncio.subprocess.PIPE
            child = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, stderr=errors, cwd=cwd, limit=1 << 24
            )
        try:
            try:
                hello = await _answer(name, child)
            except RuntimeError as error:
                raise RuntimeError(f"{error}\n{_tail(log)}".rstrip()) from None
            yield Lines(name, child, hello)
        except BaseException:
            with suppress(ProcessLookupError):
                child.kill()  # it may be running a command that takes minutes
            raise
        finally:
            assert child.stdin is not None
            child.stdin.close()
            try:
                await asyncio.wait_for(child.wait(), 10)
            except TimeoutError:
                child.kill()
                await child.wait()

    async def ask(self, cmd: str, **more: Any) -> dict[str, Any]:
        """Send a command, and return the answer. Errors: RuntimeError if the answer is an error."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"cmd": cmd, **more}).encode() + b"\n")
        answer = await _answer(self.name, self._child)
        if "error" in answer:
            raise RuntimeError(f"{self.name} {cmd}: {answer['error']}")
        return answer


async def _answer(name: str, child: asyncio.subprocess.Process) -> dict[str, Any]:
    assert child.stdout is not None
    line = await child.stdout.readline()
    if not line:
        raise RuntimeError(f"{name} ended with status {await child.wait()}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


async def build(module: str) -> Path:
    """Compile a Go module of this folder. Errors: RuntimeError if Go is missing, or the module does not compile."""
    if shutil.which("go") is None:
        raise RuntimeError(f"bench/{module} is written in Go, and there is no `go` on the PATH")
    _BUILT.mkdir(exist_ok=True)
    program = _BUILT / module
    # One process builds at a time: no other one may start a program that is half written.
    with (_BUILT / f"{module}.lock").open("ab") as locked:
        await asyncio.to_thread(fcntl.flock, locked, fcntl.LOCK_EX)
        child = await asyncio.create_subprocess_exec(
            "go", "build", "-o", str(program), ".", cwd=_HERE / module, stderr=asyncio.subprocess.PIPE
        )
        try:
            _, errors = await child.communicate()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                child.terminate()
            await child.wait()
            raise
    if child.returncode:
        raise RuntimeError(f"bench/{module} does not compile:\n{errors.decode(errors='replace')[-2000:]}")
    return program


@asynccontextmanager
async def simulator(target: str, directory: Path, *flags: str) -> AsyncIterator[Lines]:
    """Start the simulated fleet without a proxy. `flags` are further flags of the simulator."""
    command = [str(await build("fleet")), "-target", target, *flags]
    async with Lines.start("fleet", command, directory / "fleet.log") as lines:
        yield lines


def tree(pid: int) -> list[int]:
    """Return the ids of a process and all its descendants."""
    pids = [pid]
    for one in pids:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            pids += [int(child) for child in task.read_text().split()]
    return pids


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its descendants so far, with ended threads, to the nanosecond."""
    return sum(main_seconds(one) for one in tree(pid))


def main_seconds(pid: int) -> float:
    """Return the CPU time of a process without its descendants."""
    return time.clock_gettime(~pid << 3 | 2)  # Linux's CPU clock of another process


def pss_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants, in bytes. Shared pages count once."""
    total = 0
    for one in tree(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def descriptors(pid: int) -> int:
    """Return the number of open files of a process and its descendants."""
    return sum(len(os.listdir(f"/proc/{one}/fd")) for one in tree(pid))


def many_files(wanted: int) -> None:
    """Allow this process and its descendants this many open files. Errors: OSError if the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OSError(f"{wanted} open files are needed, and the system allows {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
