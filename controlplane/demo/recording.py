"""Record a switch as a picture: real commands against a real control plane with three real Envoys.

    python -m controlplane.demo.recording docs/switch.svg

The times in the picture are measured. Everything else is the same in each recording.
"""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from controlplane.demo import scenario
from controlplane.demo.lean import LeanServer
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.demo.terminal_svg import Line, svg

COMMANDS = (
    "curl localhost:10000/v2/models/digits/infer",
    'turnout switch digits --to green --reason "reads 99 %"',
    "curl localhost:10000/v2/models/digits/infer",
    "turnout status",
    "turnout undo digits",
)
NODES = ("edge-1", "edge-2", "edge-3")
# Port of the first Envoy as the commands show it; the real one is any free port.
_PORT = 10000
# Seconds of the picture between a command's output and the next command, and between a command and its output.
_PAUSE, _ENTER = 1.6, 0.5
_TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class Step:
    """A command, the bytes that it printed to a terminal, and how long it took in seconds."""

    command: str
    output: bytes
    seconds: float


async def record() -> list[Step]:
    """Run the commands, and return their steps. Errors: Error if something can't start; CalledProcessError."""
    ports = {node: free_port() for node in NODES}
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane())
        server = await stack.enter_async_context(LeanServer())
        revision = await plane.apply(scenario.manifest(ports, server.ports))
        for node in NODES:
            envoy = await stack.enter_async_context(plane.envoy(node))
            await envoy.ready()
            await envoy.listens(ports[node])
        await plane.held(revision, nodes=len(NODES))
        folder = Path(sys.executable).parent
        env = {
            **os.environ,
            "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}",
            "TURNOUT_API": plane.api,
            "TURNOUT_AUTHOR": "ada@lab",
            "TERM": "xterm-256color",
            "COLUMNS": "100",
        }
        env.pop("NO_COLOR", None)
        return [await asyncio.to_thread(run, command, env, ports[NODES[0]]) for command in COMMANDS]


def run(command: str, env: Mapping[str, str], port: int) -> Step:
    """Run one command with its stdout in a terminal. Errors: CalledProcessError if it fails."""
    text = command.replace(f":{_PORT}/", f":{port}/").replace("curl ", "curl -s ")
    master, slave = pty.openpty()
    start = time.monotonic()
    with subprocess.Popen(
        ["sh", "-c", text], env=env, stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE
    ) as child:
        os.close(slave)
        output = bytearray()
        try:
            while data := os.read(master, 65_536):
                output += data
        except OSError:
            pass  # Linux reports the end of a terminal as an error.
        finally:
            os.close(master)
        code = child.wait(_TIMEOUT)
        seconds = time.monotonic() - start
        if code:
            errors = child.stderr.read() if child.stderr is not None else b""
            raise subprocess.CalledProcessError(code, text, bytes(output), errors)
    return Step(command, bytes(output), seconds)


def lines(steps: Sequence[Step]) -> list[Line]:
    """Return the lines of the picture, with the time at which each appears."""
    listed: list[Line] = []
    now = 0.0
    for step in steps:
        if listed:
            now += _PAUSE
            listed.append(Line(Text(), now))
        listed.append(Line(Text.assemble(("$ ", "dim"), (step.command, "bold")), now))
        now += _ENTER + min(step.seconds, _PAUSE)
        listed += [Line(text, now) for text in _printed(step.output)]
    return listed


def _printed(output: bytes) -> list[Text]:
    text = Text.from_ansi(output.decode(errors="replace").replace("\r\n", "\n").rstrip("\n"))
    printed = list(text.split("\n", allow_blank=True))
    for line in printed:
        line.rstrip()
    return printed


def main() -> None:
    """Record the session, and write the picture to the file that the command line names."""
    picture = svg("turnout switch moves a model to green on three Envoys", lines(asyncio.run(record())))
    Path(sys.argv[1]).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
