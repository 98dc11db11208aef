"""The port that Prometheus scrapes: `GET /metrics` over HTTP/1.

The server runs in threads. The metrics are read on the event loop, so that no scrape reads a fold while an event is applied.
Only the text is formatted in a thread.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, Metric, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

# Seconds that a scrape waits for the event loop, and that it waits for the client to send its request.
_TIMEOUT = 10.0

# Seconds between two checks of the serving thread for a call of `stop`. So `stop` may take this long.
_POLL = 0.1


class MetricsServer:
    """Serves a registry over HTTP until `stop`."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        """Listen on a host and port. Call it on the event loop. Errors: OSError."""
        self._server = _Server(host, port)
        self._server.set_app(_only_metrics(make_wsgi_app(_OnLoop(registry, asyncio.get_running_loop()))))
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL,), name="metrics", daemon=True)
        self._thread.start()

    async def stop(self, grace: float = 0.0) -> None:
        """Stop listening. Do not wait for scrapes in progress; `grace` is ignored."""
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingWSGIServer):
    def __init__(self, host: str, port: int) -> None:
        self.address_family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        super().__init__((str(address[0]), port), _QuietHandler)

    def server_bind(self) -> None:
        """Bind like TCPServer. HTTPServer would look up the host's name in DNS, which can take a long time."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _OnLoop(Collector):
    """A registry that collects its metrics on the event loop, for a caller in any thread."""

    def __init__(self, registry: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._registry = registry
        self._loop = loop

    def collect(self) -> Iterable[Metric]:
        return asyncio.run_coroutine_threadsafe(self._collected(), self._loop).result(_TIMEOUT)

    def restricted_registry(self, names: Iterable[str]) -> _OnLoop:
        """Return a registry with only these metrics, for a scrape with `?name[]=…`."""
        return _OnLoop(self._registry.restricted_registry(names), self._loop)

    async def _collected(self) -> list[Metric]:
        return list(self._registry.collect())


class _QuietHandler(WSGIRequestHandler):
    timeout = _TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing, because Prometheus scrapes every few seconds."""


def _only_metrics(app: Callable[..., Any]) -> Callable[..., Any]:
    """Return an app that answers 404 for every path except `/metrics`."""

    def handle(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] == "/metrics":
            return app(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"Metrics are at /metrics.\n"]

    return handle
