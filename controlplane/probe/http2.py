"""One request over HTTP/2 (RFC 9113), as a client: enough for a health check."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hpack import Decoder, HPACKError

from controlplane.http2 import frames
from controlplane.http2.headers import Headers, encoded

# Frames of a response, and bytes of a header block. More are an error.
_MAX_FRAMES = 64
_MAX_BLOCK = 16_384

_STREAM = 1


@dataclass(slots=True)
class Response:
    """The response to a request, as far as it has arrived."""

    status: int = 0
    # The status in the trailers; 0 is OK. None: no frame had one.
    grpc_status: int | None = None
    body: bytes = b""
    ended: bool = False


async def request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fields: Headers, body: bytes = b"", max_body: int = 0
) -> Response:
    """Send a request on a new connection. Return its complete response, or only its head if `max_body` is 0.

    Errors: ValueError for a response that is not HTTP/2 or too large; ConnectionFault, OSError, EOFError.
    """
    writer.write(
        frames.PREFACE
        + frames.settings({frames.Setting.ENABLE_PUSH: 0, frames.Setting.MAX_HEADER_LIST_SIZE: _MAX_BLOCK})
        + frames.headers(_STREAM, encoded(fields), end=not body)
        + (frames.frame(frames.DATA, frames.END_STREAM, _STREAM, body) if body else b"")
    )
    response, decoder, block = Response(), Decoder(max_header_list_size=_MAX_BLOCK), b""
    for _ in range(_MAX_FRAMES):
        kind, flags, stream, payload = await _frame(reader)
        # One of these frames arrives: one about the connection, a part of the response, or its end by an error.
        if kind == frames.SETTINGS and not flags & frames.ACK:
            writer.write(frames.SETTINGS_ACK)
        elif kind == frames.PING and not flags & frames.ACK:
            writer.write(frames.ping(payload, ack=True))
        elif kind == frames.GOAWAY or (kind == frames.RST_STREAM and stream == _STREAM):
            raise ValueError("request refused")
        elif kind in (frames.HEADERS, frames.CONTINUATION):
            response.ended |= kind == frames.HEADERS and bool(flags & frames.END_STREAM)
            block += _fragment(kind, flags, payload)
            if len(block) > _MAX_BLOCK:
                raise ValueError("header block too large")
            if flags & frames.END_HEADERS:
                _read(response, decoder, block)
                block = b""
        elif kind == frames.DATA and stream == _STREAM:
            response.body += frames.unpadded(flags, payload)
            response.ended |= bool(flags & frames.END_STREAM)
            if len(response.body) > max_body:
                raise ValueError("response too large")
        # A response with status 1xx is followed by the final one. END_STREAM of a header block comes with its first frame.
        if response.status >= 200 and not block and (response.ended or not max_body):
            return response
    raise ValueError("too many frames")


async def settings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Open a connection of HTTP/2, and wait for the server's settings. Errors: ValueError, OSError, EOFError."""
    writer.write(frames.PREFACE + frames.settings({frames.Setting.ENABLE_PUSH: 0}))
    # The server's first frame has its settings (RFC 9113, section 3.4).
    if (await _frame(reader))[0] != frames.SETTINGS:
        raise ValueError("not HTTP/2")


async def _frame(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    """Read a frame: its type, flags, stream and payload."""
    high, low, kind, flags, stream = frames.HEADER.unpack(await reader.readexactly(frames.HEADER_BYTES))
    length = (high << 8) + low
    if length > frames.MAX_FRAME:
        raise ValueError("not HTTP/2")
    return kind, flags, stream & frames.LOW_31_BITS, await reader.readexactly(length)


def _fragment(kind: int, flags: int, payload: bytes) -> bytes:
    """Return the part of a header block in a HEADERS or CONTINUATION frame."""
    if kind == frames.CONTINUATION:
        return payload
    payload = frames.unpadded(flags, payload)
    return payload[5:] if flags & frames.HAS_PRIORITY else payload


def _read(response: Response, decoder: Decoder, block: bytes) -> None:
    """Add the fields of a header block that matter to the response. Errors: ValueError."""
    try:
        fields = dict(decoder.decode(block, raw=True))
    except HPACKError:
        raise ValueError("not HTTP/2") from None
    response.status = int(fields.get(b":status", response.status))
    if b"grpc-status" in fields:
        response.grpc_status = int(fields[b"grpc-status"])
