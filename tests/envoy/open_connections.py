"""Connections that stay open: each sends one request after another, over HTTP/1.1 or HTTP/2, until the Envoy ends it."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import Counter

from hpack import Decoder

from controlplane.http2 import frames
from controlplane.http2.headers import encoded


class OpenConnection:
    """One open connection. It is never opened again."""

    def __init__(self, host: str, port: int, model: str, *, http2: bool, tls: ssl.SSLContext | None = None) -> None:
        self.address = (host, port)
        self.model = model
        self.http2 = http2
        # By status, or by the text of an error: the number of requests that ended so.
        self.answers: Counter[str] = Counter()
        # True once the Envoy has said that it closes the connection, with `connection: close` or GOAWAY.
        self.leaving = False
        self._tls = tls
        self._decoder = Decoder()
        self._next_stream = 1
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the connection, and send requests from then on."""
        context = self._tls
        if context is not None:
            context.set_alpn_protocols(["h2" if self.http2 else "http/1.1"])
        self._reader, self._writer = await asyncio.open_connection(*self.address, ssl=context)
        self._task = asyncio.create_task(self._run())

    @property
    def _path(self) -> str:
        return f"/v2/models/{self.model}/infer"

    @property
    def working(self) -> bool:
        """True while requests are sent."""
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """Complete the request in flight, and close the connection."""
        self._stopped = True
        if self._task is not None:
            await self._task
            self._writer.close()

    async def _run(self) -> None:
        if self.http2:
            self._writer.write(frames.PREFACE + frames.settings({}))
        try:
            while not self._stopped and not self.leaving:
                async with asyncio.timeout(10):
                    status = await (self._request2() if self.http2 else self._request1())
                self.answers[status] += 1
                await asyncio.sleep(0.002)
        except (OSError, EOFError, TimeoutError) as error:
            self.answers[repr(error)] += 1

    async def _request1(self) -> str:
        self._writer.write(f"GET {self._path} HTTP/1.1\r\nhost: iris\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        await self._reader.readexactly(int(length[1]) if length else 0)
        self.leaving = "connection: close" in head
        return head.split(" ")[1]

    async def _request2(self) -> str:
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        fields = ((":method", "GET"), (":scheme", "http"), (":authority", "iris"), (":path", self._path))
        self._writer.write(frames.headers(stream, encoded(fields), end=True))
        status = ""
        while True:
            high, low, kind, flags, number = frames.HEADER.unpack(await self._reader.readexactly(frames.HEADER_BYTES))
            payload = await self._reader.readexactly((high << 8) + low)
            ended = number == stream and bool(flags & frames.END_STREAM)
            if kind == frames.SETTINGS and not flags & frames.ACK:
                self._writer.write(frames.SETTINGS_ACK)
            elif kind == frames.PING and not flags & frames.ACK:
                self._writer.write(frames.ping(payload, ack=True))
            elif kind == frames.GOAWAY:
                # Streams up to the number in the frame are completed.
                self.leaving = True
            elif kind == frames.RST_STREAM and number == stream:
                return f"reset with {int.from_bytes(payload, 'big')}"
            elif kind == frames.HEADERS:
                status = dict(self._decoder.decode(payload, raw=True)).get(b":status", status.encode()).decode()
            if kind in (frames.HEADERS, frames.DATA) and ended:
                return status


class OpenConnections:
    """Connections to several ports, some of each protocol."""

    def __init__(self) -> None:
        self.all: list[OpenConnection] = []

    async def open(self, host: str, port: int, model: str, *, tls: ssl.SSLContext | None = None) -> None:
        """Open two connections of each protocol to a port. Their requests name `model`."""
        for http2 in (False, True, False, True):
            connection = OpenConnection(host, port, model, http2=http2, tls=tls)
            await connection.open()
            self.all.append(connection)

    @property
    def answers(self) -> Counter[str]:
        """The answers on all connections."""
        return sum((connection.answers for connection in self.all), Counter())

    async def wait_for_more(self, answers: int) -> None:
        """Wait until every connection that is still open has had this many more answers."""
        totals = {connection: connection.answers.total() + answers for connection in self.all}
        async with asyncio.timeout(20):
            while any(c.answers.total() < n and c.working for c, n in totals.items()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        await asyncio.gather(*(connection.stop() for connection in self.all))
