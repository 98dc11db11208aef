"""The effect of each frame, and the faults."""

from __future__ import annotations

import struct

import pytest
from hyperframe.frame import Frame

from controlplane.http2 import frames
from controlplane.http2.frames import PREFACE, ConnectionFault, ErrorCode
from controlplane.http2.headers import MAX_HEADER_LIST, encoded
from tests.http2.side import FIELDS, Side, pair


@pytest.mark.parametrize(
    "fields",
    [
        [*FIELDS, ("Upper", "x")],
        [*FIELDS, ("connection", "close")],
        [*FIELDS, ("te", "gzip")],
        [*FIELDS, (":path", "/y")],
        [*FIELDS, (":status", "200")],
        [*FIELDS, ("a", "b\r\nc")],
        [*FIELDS, ("a", " b")],
        [*FIELDS, ("a b", "c")],
        FIELDS[:2],
        [*FIELDS[:2], (":path", "")],
        [("a", "b"), *FIELDS],
        [*FIELDS, ("content-length", "-1")],
        [*FIELDS, ("content-length", "x")],
    ],
    ids=lambda fields: str(fields[-1]),
)
def test_a_malformed_request_ends_its_stream_only(fields: list[tuple[str, str]]) -> None:
    client, side = pair()
    block = client.encoder.encode(fields)
    for _ in range(2):
        side.receive(frames.headers(client.get_next_available_stream_id(), block))
        client.highest_outbound_stream_id += 2
        block = client.encoder.encode(fields)
    assert list(side.fields) == [1]
    kinds = []
    data = side.output()
    while data:
        frame, size = Frame.parse_frame_header(memoryview(data[:9]))
        kinds.append((type(frame).__name__, frame.stream_id))
        assert int.from_bytes(data[9:13], "big") == ErrorCode.PROTOCOL_ERROR
        data = data[9 + size :]
    assert kinds == [("RstStreamFrame", 3), ("RstStreamFrame", 5)]
    # A malformed block changes the dynamic table of HPACK, too.
    client.send_headers(7, FIELDS)
    side.receive(client.data_to_send())
    assert side.fields[7] == dict(FIELDS)


@pytest.mark.parametrize("sent", [0, 2, 4])
def test_data_must_have_its_content_length(sent: int) -> None:
    client, side = pair()
    client.send_headers(3, [*FIELDS, ("content-length", "3")])
    client.send_data(3, bytes(sent), end_stream=True)
    side.receive(client.data_to_send())
    assert side.listeners[3].was_aborted
    assert 3 not in side.http2.streams.by_id
    # The connection's window is opened for all bytes.
    assert side.unwanted == sent


def test_unknown_frames_and_settings_are_ignored() -> None:
    client, side = pair()
    side.receive(frames.frame(0x42, 0xFF, 1, b"what") + frames.frame(frames.SETTINGS, 0, 0, struct.pack(">HL", 0x99, 7)))
    client.send_data(1, b"still here")
    side.receive(client.data_to_send())
    assert side.listeners[1].data == b"still here"


def test_a_client_that_resets_its_streams_leaves_nothing_behind() -> None:
    side = Side(streams=2)
    side.receive(PREFACE + frames.settings({}))
    block = encoded((*FIELDS,))
    for number in range(1, 2001, 2):
        side.receive(frames.headers(number, block) + frames.reset(number, ErrorCode.CANCEL))
    assert not side.http2.streams.by_id
    assert all(listener.was_aborted for listener in side.listeners.values())
    for number in range(2001, 4001, 2):
        side.receive(frames.headers(number, block))
    assert len(side.http2.streams.by_id) == 2
    assert len(side.http2.streams._reset) <= 256


OPEN = frames.settings({}) + frames.headers(1, encoded((*FIELDS,)))


E, Setting = frames.ErrorCode, frames.Setting
frame, settings = frames.frame, frames.settings
TOO_MUCH = "header block of more than 65536 bytes or 64 frames"


@pytest.mark.parametrize(
    ("data", "reason", "message"),
    [
        (frames.ping(), E.PROTOCOL_ERROR, "first frame is not SETTINGS"),
        (frames.SETTINGS_ACK, E.PROTOCOL_ERROR, "first frame is not SETTINGS"),
        (OPEN + frame(frames.DATA, 8, 1, b"\x05abc"), E.PROTOCOL_ERROR, "padding longer than the frame"),
        (
            OPEN + frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\x02"),
            E.PROTOCOL_ERROR,
            "PUSH_PROMISE from a client",
        ),
        (
            OPEN + frame(frames.HEADERS, 0, 3) + frames.ping(),
            E.PROTOCOL_ERROR,
            "frame within a header block",
        ),
        (
            OPEN + frame(frames.HEADERS, 0, 3) + frame(9, 0, 3) * 64,
            E.ENHANCE_YOUR_CALM,
            TOO_MUCH,
        ),
        (
            OPEN + frame(frames.HEADERS, 0, 3) + frame(9, 0, 3, bytes(16_384)) * 5,
            E.ENHANCE_YOUR_CALM,
            TOO_MUCH,
        ),
        (
            OPEN + frames.headers(3, encoded((*FIELDS, ("a", "b" * MAX_HEADER_LIST)))),
            E.ENHANCE_YOUR_CALM,
            "header list larger than 65536 bytes",
        ),
        (OPEN + frames.headers(3, b"\xff\xff\xff\xff\xff\xff"), E.COMPRESSION_ERROR, "invalid header block"),
        (OPEN + frames.headers(3, b"\x00\x85\xff"), E.COMPRESSION_ERROR, "invalid header block"),
        (OPEN + frames.headers(2, b"\x82"), E.PROTOCOL_ERROR, "HEADERS on stream 2, which a client can't open"),
        (OPEN + frame(frames.RST_STREAM, 0, 3, bytes(4)), E.PROTOCOL_ERROR, "RST_STREAM on an idle stream"),
        (OPEN + frame(frames.RST_STREAM, 0, 1, bytes(3)), E.FRAME_SIZE_ERROR, "RST_STREAM of the wrong size"),
        (OPEN + frame(frames.SETTINGS, 0, 0, bytes(5)), E.FRAME_SIZE_ERROR, "SETTINGS of the wrong size"),
        (OPEN + frame(frames.SETTINGS, 0, 1), E.PROTOCOL_ERROR, "SETTINGS on a stream"),
        (
            OPEN + settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31}),
            E.FLOW_CONTROL_ERROR,
            "SETTINGS_INITIAL_WINDOW_SIZE of 2147483648",
        ),
        (OPEN + settings({Setting.MAX_FRAME_SIZE: 1}), E.PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE of 1"),
        (OPEN + settings({Setting.ENABLE_PUSH: 2}), E.PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH of 2"),
        (OPEN + frame(frames.PING, 0, 0, bytes(7)), E.FRAME_SIZE_ERROR, "PING of the wrong size"),
        (OPEN + frame(frames.GOAWAY, 0, 0, bytes(7)), E.FRAME_SIZE_ERROR, "GOAWAY of the wrong size"),
        (OPEN + frames.window_update(0, 0), E.PROTOCOL_ERROR, "WINDOW_UPDATE of zero"),
        (OPEN + frames.window_update(3, 1), E.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream"),
        (OPEN + frame(frames.PRIORITY, 0, 1, b"\0\0\0\1\0"), E.PROTOCOL_ERROR, "stream 1 depends on itself"),
        (OPEN + frame(frames.DATA, 0, 3, b"x"), E.PROTOCOL_ERROR, "DATA on an idle stream"),
        (OPEN + frame(frames.CONTINUATION, 4, 1), E.PROTOCOL_ERROR, "CONTINUATION without HEADERS"),
        (OPEN + frames.window_update(0, 2**31 - 1), E.FLOW_CONTROL_ERROR, "window larger than 2147483647 bytes"),
        (OPEN + frame(frames.PING, 0, 1, bytes(8)), E.PROTOCOL_ERROR, "PING on a stream"),
        (OPEN + frame(frames.GOAWAY, 0, 1, bytes(8)), E.PROTOCOL_ERROR, "GOAWAY on a stream"),
        (OPEN + frame(frames.PRIORITY, 0, 0, bytes(5)), E.PROTOCOL_ERROR, "PRIORITY on stream 0"),
        (OPEN + frame(frames.HEADERS, 0x24, 3, b"\x82"), E.FRAME_SIZE_ERROR, "HEADERS of the wrong size"),
        (OPEN + b"\0\x40\x01\0\0\0\0\0\1", E.FRAME_SIZE_ERROR, "frame of 16385 bytes; at most 16384 are allowed"),
    ],
)
def test_a_frame_that_breaks_the_protocol_is_a_connection_fault(data: bytes, reason: ErrorCode, message: str) -> None:
    side = Side()
    with pytest.raises(ConnectionFault) as caught:
        side.receive(PREFACE + data)
    assert caught.value.reason is reason
    assert str(caught.value).startswith(message)
