"""Requests over HTTP/1.1 from plain sockets: so cheap that the Envoy limits the rate, and not the client.

Every connection has one request in flight. The client reads the answer of one connection, sends its next request, and goes on
to the next connection. All functions block; call them through `asyncio.to_thread`.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

_TIMEOUT = 30.0  # seconds for one answer


@dataclass(frozen=True, slots=True)
class Load:
    """The result of a period of load."""

    requests: int
    failed: int  # answers other than 200
    seconds: float

    @property
    def rate(self) -> float:
        """Return the requests per second."""
        return self.requests / self.seconds


class Clients:
    """Connections that stay open between periods of load, so that opening them is not measured."""

    def __init__(self, port: int, connections: int = 128) -> None:
        self._stack = ExitStack()
        self._sockets = self._stack.enter_context(_connected(port, connections))

    def load(self, path: str, seconds: float) -> Load:
        """Send requests for `path` for this time, and return once all are answered."""
        return self.send(_request(path), seconds)

    def send(self, request: bytes, seconds: float) -> Load:
        """Send a whole request again and again for this time, and return once all are answered."""
        requests = failed = 0
        start = time.perf_counter()
        for s in self._sockets:
            s.sendall(request)
        while time.perf_counter() < start + seconds:
            for s in self._sockets:
                failed += not _answer(s).startswith(b"HTTP/1.1 200")
                s.sendall(request)
            requests += len(self._sockets)
        for s in self._sockets:
            failed += not _answer(s).startswith(b"HTTP/1.1 200")
        return Load(requests + len(self._sockets), failed, time.perf_counter() - start)

    def close(self) -> None:
        """Close the connections."""
        self._stack.close()


def ask(port: int, path: str, header: str, users: Iterable[str], connections: int = 16) -> Counter[str]:
    """Send one request for each user, named in `header`. Return the count of each body, or status if it is not 200."""
    counts: Counter[str] = Counter()
    with _connected(port, connections) as sockets:
        sent = 0
        for user in users:
            s = sockets[sent % connections]
            if sent >= connections:
                counts[_outcome(_answer(s))] += 1
            s.sendall(_request(path, f"{header}: {user}\r\n"))
            sent += 1
        for s in sockets[:sent]:
            counts[_outcome(_answer(s))] += 1
    return counts


@contextmanager
def _connected(port: int, connections: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        sockets = []
        for _ in range(connections):
            s = stack.enter_context(socket.create_connection(("127.0.0.1", port), _TIMEOUT))
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets.append(s)
        yield sockets


def _request(path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: bench\r\n{headers}\r\n".encode()


def _answer(s: socket.socket) -> bytes:
    """Read one whole answer. Most come in one piece."""
    data = b""
    while True:
        piece = s.recv(65_536)
        if not piece:
            raise ConnectionError("the server closed the connection before it had answered")
        data += piece
        end = data.find(b"\r\n\r\n")
        if end < 0:
            continue
        at = data.find(b"content-length: ", 0, end)
        length = int(data[at + 16 : data.index(b"\r", at)]) if at >= 0 else 0
        if len(data) >= end + 4 + length:
            return data


def _outcome(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head[9:12].decode()
    return body.decode() if status == "200" else status
