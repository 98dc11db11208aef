"""Programs in Go that the benchmarks drive by JSON, one object a line, and what processes cost."""

from __future__ import annotations

import asyncio
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
    """A child that is asked on its standard input and answers on its standard output. It ends when its input does."""

    def __init__(self, name: str, child: asyncio.subprocess.Process, hello: dict[str, Any]) -> None:
        self.name = name
        self.pid = child.pid
        self.hello = hello  # what it said first
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
                child.kill()  # it may be amid a command that takes minutes
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
        """One command and its answer. Errors: RuntimeError when it says that it can't."""
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
    """Compiles a Go module of this folder. Errors: RuntimeError when there is no Go, or it does not compile."""
    if shutil.which("go") is None:
        raise RuntimeError(f"bench/{module} is written in Go, and there is no `go` on the PATH")
    _BUILT.mkdir(exist_ok=True)
    program = _BUILT / module
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
    """The simulated fleet, without a proxy yet; `flags` are its own, beside the target."""
    command = [str(await build("fleet")), "-target", target, *flags]
    async with Lines.start("fleet", command, directory / "fleet.log") as lines:
        yield lines


def tree(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all that come from it so far, ended threads included, to the nanosecond."""
    return sum(main_seconds(one) for one in tree(pid))


def main_seconds(pid: int) -> float:
    """CPU time of a process alone."""
    return time.clock_gettime(~pid << 3 | 2)  # Linux's clock of another process


def pss_bytes(pid: int) -> int:
    """Memory that a process and all that come from it have resident, in bytes; what they share is counted once."""
    total = 0
    for one in tree(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def descriptors(pid: int) -> int:
    """Open files of a process and all that come from it."""
    return sum(len(os.listdir(f"/proc/{one}/fd")) for one in tree(pid))


def many_files(wanted: int) -> None:
    """Allows this process, and those that it starts, so many open files. Errors: OSError when the system does not let it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OSError(f"{wanted} open files are needed, and the system allows {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
