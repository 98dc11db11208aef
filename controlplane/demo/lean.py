"""A cheap model server for tests and benchmarks: one process, one port for each version.

    python -m controlplane.demo.lean FILE blue green     writes {"blue": PORT, …} to FILE

It answers any path with 200, and names the version in a header and in the body. `?seconds=N` streams the answer for that long,
a chunk every 50 ms.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from controlplane.demo.load import VERSION_HEADER
from controlplane.demo.process import Process, Startable
from controlplane.errors import Code, Error

_TICK = 0.05  # seconds between chunks


class LeanServer(Startable):
    """The server's process, as a test uses it. `async with` starts and ends it."""

    def __init__(self, versions: Sequence[str] = ("blue", "green")) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="turnout-lean-")
        self._file = Path(self._temporary.name) / "ports.json"
        command = [sys.executable, "-m", "controlplane.demo.lean", str(self._file), *versions]
        self.process = Process("the lean server", command, Path(self._temporary.name) / "log")
        # By version; filled by `start`.
        self.ports: dict[str, int] = {}

    async def start(self) -> None:
        """Start it, and return when it listens. Errors: UNAVAILABLE after 20 s."""
        await self.process.start()
        deadline = time.monotonic() + 20
        while not self._file.exists():
            self.process.check()
            if time.monotonic() > deadline:
                raise Error(Code.UNAVAILABLE, "NOT_READY", "the lean server did not start within 20 s")
            await asyncio.sleep(0.01)
        self.ports = json.loads(self._file.read_text())

    async def close(self) -> None:
        """Kill it."""
        await self.process.kill()
        self._temporary.cleanup()


# ------------------------------------------------------------------------------------------------- inside the process


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: one request after the other; request bodies are discarded."""

    def __init__(self, version: str) -> None:
        body = json.dumps({"model_version": version}).encode()
        head = f"HTTP/1.1 200 OK\r\n{VERSION_HEADER}: {version}\r\ncontent-type: application/json\r\n"
        self.answer = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        self.stream_head = f"{head}transfer-encoding: chunked\r\n\r\n".encode()
        self.chunk = b"%x\r\n%s\r\n" % (len(body), body)
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            if b"\r\ntransfer-encoding: chunked" in head:
                # The last chunk ends like this. Known flaw: a body with the same bytes inside is answered too early.
                stop = self.buffer.find(b"0\r\n\r\n", end + 4) + 5
            else:
                stop = end + 4 + (int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)
            if stop < end + 4 or len(self.buffer) < stop:
                return
            self.buffer = self.buffer[stop:]
            self.respond(head.split(b" ", 2)[1])

    def respond(self, path: bytes) -> None:
        """Answer a request for a path."""
        if self.transport is None:
            return
        _, streams, seconds = path.partition(b"?seconds=")
        if not streams:
            self.transport.write(self.answer)
        else:
            self.transport.write(self.stream_head)
            self.send_chunks(round(float(seconds) / _TICK))

    def send_chunks(self, chunks: int) -> None:
        """Send so many chunks, one at each tick, and then the end of the answer."""
        if self.transport is None:
            return
        if chunks == 0:
            self.transport.write(b"0\r\n\r\n")
        else:
            self.transport.write(self.chunk)
            asyncio.get_running_loop().call_later(_TICK, self.send_chunks, chunks - 1)


async def _serve(file: Path, versions: Sequence[str]) -> None:
    ports = {}
    for version in versions:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda v=version: Connection(v), "127.0.0.1", 0, backlog=1024)  # type: ignore[misc]
        ports[version] = server.sockets[0].getsockname()[1]
        await server.start_serving()
    new_file = file.with_suffix(".new")
    new_file.write_text(json.dumps(ports))
    os.replace(new_file, file)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2:]))
