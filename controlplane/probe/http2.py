"""One request over HTTP/2 (RFC 9113), as a client: enough for a health check."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hpack import Decoder, HPACKError

from controlplane.http2 import frames
from controlplane.http2.headers import Headers, encoded

# Frames of an answer, and bytes of a header block. More are an error.
_MAX_FRAMES = 64
_MAX_BLOCK = 16_384

_STREAM = 1


@dataclass(slots=True)
class Answer:
    """The answer to a request, as far as it has come."""

    status: int = 0
    # The status in the trailers; 0 is OK. None: there is none yet.
    grpc_status: int | None = None
    body: bytes = b""
    ended: bool = False


async def request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fields: Headers, body: bytes = b"", max_body: int = 0
) -> Answer:
    """Send a request on a new connection. Return its answer: complete, or with `max_body` 0 its head only.

    Errors: ValueError for an answer that is not HTTP/2 or too large; OSError, EOFError.
    """
    writer.write(
        frames.PREFACE
        + frames.settings({frames.Setting.ENABLE_PUSH: 0, frames.Setting.MAX_HEADER_LIST_SIZE: _MAX_BLOCK})
        + frames.headers(_STREAM, encoded(fields), end=not body)
        + (frames.frame(frames.DATA, frames.END_STREAM, _STREAM, body) if body else b"")
    )
    answer, decoder, block = Answer(), Decoder(max_header_list_size=_MAX_BLOCK), b""
    for _ in range(_MAX_FRAMES):
        kind, flags, stream, payload = await _frame(reader)
        # One of these frames arrives: one about the connection, a part of the answer, or its end by an error.
        if kind == frames.SETTINGS and not flags & frames.ACK:
            writer.write(frames.SETTINGS_ACK)
        elif kind == frames.PING and not flags & frames.ACK:
            writer.write(frames.ping(payload, ack=True))
        elif kind == frames.GOAWAY or (kind == frames.RST_STREAM and stream == _STREAM):
            raise ValueError("request refused")
        elif kind in (frames.HEADERS, frames.CONTINUATION):
            answer.ended |= kind == frames.HEADERS and bool(flags & frames.END_STREAM)
            block += _fragment(kind, flags, payload)
            if len(block) > _MAX_BLOCK:
                raise ValueError("header block too large")
            if flags & frames.END_HEADERS:
                _read(answer, decoder, block)
                block = b""
        elif kind == frames.DATA and stream == _STREAM:
            answer.body += frames.unpadded(flags, payload)
            answer.ended |= bool(flags & frames.END_STREAM)
            if len(answer.body) > max_body:
                raise ValueError("answer too large")
        # An answer with status 1xx is followed by the final one.
        if answer.status >= 200 and (answer.ended or not max_body):
            return answer
    raise ValueError("too many frames")


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


def _read(answer: Answer, decoder: Decoder, block: bytes) -> None:
    """Add the fields of a header block that matter to the answer. Errors: ValueError."""
    try:
        fields = dict(decoder.decode(block, raw=True))
    except HPACKError:
        raise ValueError("not HTTP/2") from None
    answer.status = int(fields.get(b":status", answer.status))
    if b"grpc-status" in fields:
        answer.grpc_status = int(fields[b"grpc-status"])
