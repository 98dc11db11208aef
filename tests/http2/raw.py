"""A client that sends HTTP/2 frame by frame, so that a test can send what the client of a library would not send."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame

ECHO = "/test.Echo/Echo"


def prefixed(data: bytes, compressed: int = 0) -> bytes:
    """Return a message with gRPC's prefix."""
    return bytes([compressed]) + len(data).to_bytes(4, "big") + data


def messages_of(data: bytes | bytearray) -> list[bytes]:
    """Return the complete messages at the beginning of a stream's DATA."""
    messages, start = [], 0
    while len(data) >= start + 5 and len(data) >= (end := start + 5 + int.from_bytes(data[start + 1 : start + 5], "big")):
        messages.append(bytes(data[start + 5 : end]))
        start = end
    return messages


def without_goaway(data: bytes) -> bytes:
    """Return frames without GOAWAY, since h2 takes nothing after one."""
    kept = b""
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        if not isinstance(frame, GoAwayFrame):
            kept += data[: 9 + length]
        data = data[9 + length :]
    return kept


class Raw:
    """One connection of the client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.events: list[Event] = []
        # By stream: the bytes of DATA.
        self.data: defaultdict[int, bytearray] = defaultdict(bytearray)
        # True: acknowledge received bytes with WINDOW_UPDATE.
        self.acknowledges = True
        # The server has closed the connection; and it did so with a reset, because bytes of the client were unread.
        self.closed = self.reset = False

    async def start(self, settings: dict[SettingCodes | int, int] | None = None, **headers: str) -> int:
        """Send the preface and these settings, and open a stream."""
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings(settings)
        return await self.open(**headers)

    async def open(self, *, path: str = ECHO, method: str = "POST", kind: str = "application/grpc", **more: str) -> int:
        """Open a stream. Further headers have `_` for `-`."""
        stream = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x"), ("content-type", kind)]
        self.h2.send_headers(stream, [*headers, ("te", "trailers"), *((k.replace("_", "-"), v) for k, v in more.items())])
        await self.flush()
        return stream

    async def send(self, stream: int, data: bytes, **options: Any) -> None:
        """Send DATA."""
        self.h2.send_data(stream, data, **options)
        await self.flush()

    async def send_all(self, data_by_stream: dict[int, bytes]) -> None:
        """Send DATA on several streams, a frame of each in turn, within the windows."""
        unsent = {stream: memoryview(data) for stream, data in data_by_stream.items()}
        while unsent:
            stream, data = next(iter(unsent.items()))
            await self.until(lambda: any(map(self.h2.local_flow_control_window, unsent)))
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            await self.send(stream, bytes(data[:size]))
            del unsent[stream]
            if len(data) > size:
                unsent[stream] = data[size:]

    async def ended(self, data: bytes = b"", *, end_stream: bool = False, **headers: str) -> tuple[int, dict[str, str]]:
        """Open a stream, send `data` on it, and wait until it ends. Return its number, and the headers and trailers."""
        if not self.h2.highest_outbound_stream_id:
            self.h2.initiate_connection()
        stream = await self.open(**headers)
        if data:
            await self.send(stream, data, end_stream=end_stream)
        await self.until(lambda: self.over(stream))
        return stream, self.headers(stream)

    async def flush(self) -> None:
        """Write the frames that h2 has made."""
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        """Read until a condition holds. Fail when the server closes the connection."""
        async with asyncio.timeout(seconds):
            while not condition():
                assert not self.closed, "the server has closed the connection"
                await self.read()

    async def read(self) -> None:
        """Read once."""
        try:
            data = await self.reader.read(65536)
        except ConnectionResetError:
            data, self.reset = b"", True
        self.closed = not data
        if self.closed:
            return
        self.handle(data)
        try:
            await self.flush()
        except ConnectionError:
            self.closed = True

    def handle(self, data: bytes) -> None:
        """Record the events of received bytes."""
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, DataReceived):
                self.data[event.stream_id] += event.data
                if self.acknowledges and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    async def end(self) -> None:
        """Read until the server closes the connection."""
        async with asyncio.timeout(60):
            while not self.closed:
                try:
                    await self.read()
                except ProtocolError:
                    self.closed = True

    def events_of(self, kind: type[Event], stream: int | None = None) -> list[Any]:
        """Return the events of a type, on one stream or on all."""
        return [e for e in self.events if isinstance(e, kind) and (stream is None or vars(e).get("stream_id") == stream)]

    def headers(self, stream: int) -> dict[str, str]:
        """Return all headers and trailers of a stream."""
        fields: dict[str, str] = {}
        for event in [*self.events_of(ResponseReceived, stream), *self.events_of(TrailersReceived, stream)]:
            fields |= dict(event.headers)
        return fields

    def over(self, stream: int) -> bool:
        """Return True when the server has ended a stream."""
        return bool(self.events_of(StreamEnded, stream) or self.events_of(StreamReset, stream))

    @property
    def goaway(self) -> Any:
        """Return the newest GOAWAY; None if there was none."""
        return next(reversed(self.events_of(ConnectionTerminated)), None)

    @property
    def pings(self) -> int:
        """Return the number of PINGs of the server."""
        return len(self.events_of(PingReceived))

    def messages(self, stream: int) -> list[bytes]:
        """Return the complete messages of a stream."""
        return messages_of(self.data.get(stream, b""))


@asynccontextmanager
async def raw(port: int) -> AsyncIterator[Raw]:
    """Connect, and abort the connection at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()
