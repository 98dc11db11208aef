"""Run commands in this process through the real `main`, against a real control plane."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer

from controlplane.cli.commands import app
from controlplane.cli.exits import FilesError
from controlplane.cli.files import load
from controlplane.cli.main import main
from controlplane.config import Address, Config
from controlplane.demo.ports import free_port
from controlplane.envoy_types import ROUTES
from tests.fakes.xds_client import Held, XdsClient, client

# An address at which nothing listens.
NOWHERE = "127.0.0.1:1"
# The installed program.
TURNOUT = str(Path(sys.executable).parent / "turnout")
MINIMAL = """\
gateways:
  - name: edge
    port: 10000
models:
  - name: iris
    gateways: [edge]
    versions:
      - name: blue
        endpoints: [{host: 127.0.0.1, port: 8001}]
      - name: green
        endpoints: [{host: 127.0.0.1, port: 8002}]
    split: {blue: 10000}
"""


@dataclass(frozen=True)
class Result:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture(scope="session")
def command_tree() -> Any:
    """Return the commands as typer reads them from their functions. A process of `turnout` does that once."""
    return typer.main.get_command(app)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command_tree: Any) -> Run:
    """Return a function that runs a command; `stdin` is the text of its standard input."""
    monkeypatch.setattr("controlplane.cli.main.app", command_tree)
    monkeypatch.setenv("TURNOUT_AUTHOR", "ada@tests")
    monkeypatch.delenv("TURNOUT_DEBUG", raising=False)
    monkeypatch.setenv("TURNOUT_RETRY_FOR", "0")
    # Not the client.yaml of whoever runs the tests.
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")

    def run(*args: str | Path, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capfd.readouterr()
        code = main([str(a) for a in args])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Result(code, out, err)

    return run


class Server:
    """A real control plane on free ports, in its own thread, for callers that block."""

    def __init__(self, data: Path, api_port: int = 0, *, probe: bool = False, **settings: Any) -> None:
        """Start a control plane, on a port that it may be started on again.

        By default it does not `probe`: nothing listens on most endpoints in these tests. `settings` are more of `Config`.
        """
        # Imported here: only some tests of the command line need a server.
        from controlplane.app import App

        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.data = data
        self.clients = AsyncExitStack()
        api, xds = Address("127.0.0.1", api_port or free_port()), Address("127.0.0.1", 0)
        # gRPC binds to the running loop, so the App is created on it.
        config = Config(data=data, api=api, xds=xds, metrics=None, grace=0.1, probe=probe, **settings)
        self.app = self.wait(self._started(App, config))

    def connect(
        self,
        node: str,
        variant: str = "delta",
        refuse: Callable[[str], str] = lambda type_url: "",
        held: Held | None = None,
    ) -> XdsClient:
        """Connect an xDS client until the server stops, and wait until it has the route of `iris`.

        `refuse` returns the error text of a NACK for a type, or "". `held` are resources of an earlier stream.
        """
        connected = client(self.app.xds_port, node, variant, held=held, refuse=lambda type_url, names: refuse(type_url))
        created: XdsClient = self.wait(self.clients.enter_async_context(connected))
        self.wait(created.until(lambda: "iris" in created.names(ROUTES)))
        return created

    @property
    def api(self) -> str:
        return f"127.0.0.1:{self.app.api_port}"

    def stop(self) -> None:
        if self.loop.is_closed():
            return
        self.wait(self.clients.aclose())
        self.wait(self.app.stop(0.1))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def wait(self, coroutine: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return future.result(60)

    async def _started(self, kind: Any, config: Config) -> Any:
        app = kind(config)
        await app.start()
        return app


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Start an empty control plane, and set TURNOUT_API to its address."""
    # The server's log lines would mix with the output of commands.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    created = Server(tmp_path / "data")
    monkeypatch.setenv("TURNOUT_API", created.api)
    yield created
    created.stop()
    structlog.reset_defaults()


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    """Return a file with a gateway `edge` and a model `iris` with all traffic on blue."""
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.fixture
def applied(run: Run, server: Server, minimal: Path) -> Server:
    """Return the control plane after `minimal` was applied as revision 1."""
    assert run("apply", "-f", minimal, "--reason", "first").code == 0
    return server


async def ignore_response(call: object, response: object) -> None:
    """Take the place of `XdsClient._apply`, so that the client never ACKs."""


def split_of(run: Run, model: str = "iris") -> dict[str, int]:
    split: dict[str, int] = run("get", "models", model, "-o", "json").json["models"][0]["split"]
    return split


def until_state(run: Run, node: str, state: str) -> None:
    deadline = time.monotonic() + 60
    while run("nodes", node, "-o", "json").json["status"]["node"]["state"] != state:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def problems_of(*names: str | Path) -> str:
    with pytest.raises(FilesError) as caught:
        load([str(n) for n in names])
    return str(caught.value)


def write_file(folder: Path, text: str | bytes, name: str = "f.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path
