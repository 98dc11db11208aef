"""Requests over HTTP/1.1 from bare sockets: cheap enough that the Envoy, not the client, is what is measured.

Every connection has one request under way: the client reads the answer of one, sends its next request, and turns to the
next connection. All of it blocks; call it through `asyncio.to_thread`.
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
    """What a while of load came to."""

    requests: int
    failed: int  # answers other than 200
    seconds: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def load(port: int, path: str, seconds: float, connections: int = 128) -> Load:
    """Asks for `path` for a while, over connections that are kept."""
    request = _request(path)
    with _connected(port, connections) as sockets:
        for s in sockets:
            s.sendall(request)
        requests = failed = 0
        start = time.perf_counter()
        end = start + seconds
        while (now := time.perf_counter()) < end:
            for s in sockets:
                failed += not _answer(s).startswith(b"HTTP/1.1 200")
                s.sendall(request)
            requests += connections
        for s in sockets:
            _answer(s)
    return Load(requests, failed, now - start)


def ask(port: int, path: str, header: str, users: Iterable[str], connections: int = 16) -> Counter[str]:
    """One request for each user, named in `header`: how many were answered with which body, or status where it isn't 200."""
    found: Counter[str] = Counter()
    with _connected(port, connections) as sockets:
        sent = 0
        for user in users:
            s = sockets[sent % connections]
            if sent >= connections:
                found[_said(_answer(s))] += 1
            s.sendall(_request(path, f"{header}: {user}\r\n"))
            sent += 1
        for s in sockets[:sent]:
            found[_said(_answer(s))] += 1
    return found


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
    """One whole answer: most come in one piece."""
    data = b""
    while True:
        piece = s.recv(65_536)
        if not piece:
            raise ConnectionError("the connection was closed instead of an answer")
        data += piece
        end = data.find(b"\r\n\r\n")
        if end < 0:
            continue
        at = data.find(b"content-length: ", 0, end)
        length = int(data[at + 16 : data.index(b"\r", at)]) if at >= 0 else 0
        if len(data) >= end + 4 + length:
            return data


def _said(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head[9:12].decode()
    return body.decode() if status == "200" else status
