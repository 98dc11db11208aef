"""Frames that the server writes, read by the hyperframe library."""

from __future__ import annotations

import pytest
from hyperframe.frame import Frame, GoAwayFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from controlplane.http2 import frames
from controlplane.http2.frames import ConnectionFault, ErrorCode, unpadded


def parsed(data: bytes) -> list[Frame]:
    """Return the frames in `data`, which are whole."""
    result = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]), strict=True)
        frame.parse_body(memoryview(data[9 : 9 + length]))
        result.append(frame)
        data = data[9 + length :]
    return result


def test_frames_of_the_connection() -> None:
    data = frames.settings({frames.Setting.MAX_FRAME_SIZE: 20_000}) + frames.SETTINGS_ACK
    data += frames.ping(b"12345678", ack=True) + frames.window_update(0, 7) + frames.goaway(5, ErrorCode.CANCEL)
    settings, ack, ping, update, goaway = parsed(data)
    assert isinstance(settings, SettingsFrame)
    assert settings.settings == {5: 20_000}
    assert "ACK" in ack.flags
    assert isinstance(ping, PingFrame)
    assert (ping.opaque_data, "ACK" in ping.flags) == (b"12345678", True)
    assert isinstance(update, WindowUpdateFrame)
    assert update.window_increment == 7
    assert isinstance(goaway, GoAwayFrame)
    assert (goaway.last_stream_id, goaway.error_code) == (5, ErrorCode.CANCEL)


def test_a_reset() -> None:
    (reset,) = parsed(frames.reset(3, ErrorCode.REFUSED_STREAM))
    assert isinstance(reset, RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (3, ErrorCode.REFUSED_STREAM)


@given(st.binary(max_size=300), st.integers(1, 100), st.booleans())
def test_a_header_block_in_frames(block: bytes, size: int, end: bool) -> None:
    result = parsed(frames.headers(7, block, size, end=end))
    parts = [vars(frame)["data"] for frame in result]
    assert b"".join(parts) == block
    assert [type(frame).__name__ for frame in result] == ["HeadersFrame"] + ["ContinuationFrame"] * (len(result) - 1)
    assert all(len(part) <= size for part in parts)
    assert ["END_HEADERS" in frame.flags for frame in result] == [False] * (len(result) - 1) + [True]
    assert ("END_STREAM" in result[0].flags) == end


def test_the_server_preface() -> None:
    settings, update = parsed(frames.server_preface(5, 1_000, 70_000, 300))
    assert isinstance(settings, SettingsFrame)
    assert settings.settings == {3: 5, 4: 1_000, 6: 300}
    assert isinstance(update, WindowUpdateFrame)
    assert update.window_increment == 70_000 - 65_535


def test_padding_is_removed() -> None:
    assert unpadded(0, b"\2abc") == b"\2abc"
    assert unpadded(frames.PADDED, b"\2abcd") == b"ab"
    assert unpadded(frames.PADDED, b"\0") == b""


@pytest.mark.parametrize("payload", [b"", b"\1", b"\5abc"])
def test_padding_longer_than_its_frame_is_a_connection_fault(payload: bytes) -> None:
    with pytest.raises(ConnectionFault, match="padding longer than the frame"):
        unpadded(frames.PADDED, payload)
