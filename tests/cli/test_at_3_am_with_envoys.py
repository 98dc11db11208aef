"""The sections of docs/at-3-am.md that need real Envoys: versions that fail, an Envoy that refuses, an Envoy that is away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.ports import free_port
from controlplane.problems import nodes
from tests.cli.conftest import Run, Server
from tests.cli.played_page import play

pytestmark = pytest.mark.envoy

MANIFEST = """\
gateways:
  - {{name: edge, address: 127.0.0.1, port: {gateway}}}
models:
  - name: iris
    gateways: [edge]
    versions:
      - {{name: blue, endpoints: [{{host: 127.0.0.1, port: {blue}}}]}}
      - {{name: green, endpoints: [{{host: 127.0.0.1, port: {green}}}]}}
      - {{name: red, endpoints: [{{host: 127.0.0.1, port: {red}}}]}}
    split: {{blue: 10000}}
"""


@contextlib.contextmanager
def answering(status: int) -> Iterator[int]:
    """Answer each request with this status. Yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    yield upstream.server_address[1]
    upstream.shutdown()
    upstream.server_close()


@contextlib.contextmanager
def calling(port: int) -> Iterator[None]:
    """Call the model about fifty times a second."""
    ended = threading.Event()

    def call() -> None:
        while not ended.wait(0.02):
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/iris/infer", timeout=5).read()

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    yield
    ended.set()
    caller.join(10)


def until_shown(run: Run, condition: Callable[[str], bool]) -> float:
    """Wait until `turnout status` shows what it should. Return the seconds."""
    start = time.monotonic()
    while not condition(page := run("status").out):
        assert time.monotonic() < start + 30, page
        time.sleep(0.1)
    return time.monotonic() - start


def test_sections_with_envoys(run: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With Envoys and callers on two cores, a connection may take longer than one attempt waits.
    monkeypatch.setenv("TURNOUT_RETRY_FOR", "10")
    gateway, taken = free_port(), socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    envoy = Envoy(node_bootstrap("edge-1", "edge", xds_port=server.app.xds_port, variant="delta", admin_port=0))
    loop = asyncio.new_event_loop()
    with answering(200) as blue, answering(500) as green, calling(gateway):
        file = tmp_path / "models.yaml"
        file.write_text(MANIFEST.format(gateway=gateway, blue=blue, green=green, red=free_port()))
        assert run("apply", "-f", file).code == 0
        try:
            loop.run_until_complete(envoy.start())
            loop.run_until_complete(envoy.listens(gateway))
            until_shown(run, lambda page: page.startswith("OK: revision 1 is held by 1 node; ") and "tries/s" in page)

            assert run("switch", "iris", "--to", "green", "--reason", "green is better").code == 0
            assert until_shown(run, lambda page: "version green end with an error" in page) < 10
            until_shown(run, lambda page: "100% of the tries at version green" in page)
            play(run, "A model answers with errors")
            until_shown(run, lambda page: page.startswith("OK: "))

            assert run("switch", "iris", "--to", "red").code == 0
            until_shown(run, lambda page: "100% of the tries at version red" in page)
            play(run, "A version refuses connections")

            assert run("undo", "iris", "--yes").code == 0
            until_shown(run, lambda page: page.startswith("OK: "))
            port = taken.getsockname()[1]
            file.write_text(f"gateways: [{{name: more, address: 127.0.0.1, port: {port}}}]\n")
            run("apply", "-f", file, "--no-wait")
            until_shown(run, lambda page: "NODES_REFUSE" in page)
            play(run, "An Envoy refuses a change", (" 5 ", " 6 "))
            # Without waiting the ten seconds after which a node counts as behind.
            monkeypatch.setattr(nodes, "PATIENCE", 1.0)
            os.kill(envoy.process.pid, signal.SIGSTOP)
            play(run, "An Envoy hangs")
            loop.run_until_complete(envoy.process.kill())
            until_shown(run, lambda page: "NODES_GONE" in page)
            play(run, "An Envoy is away")
        finally:
            loop.run_until_complete(envoy.close())
            loop.close()
            taken.close()
