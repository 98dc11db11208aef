"""The short way for plain frames comes to the same as the library's own."""

from __future__ import annotations

from functools import partial

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from h2.exceptions import FlowControlError, FrameTooLargeError
from hyperframe.frame import WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from controlplane.server.frames import HEADER_BYTES, OPENED, WINDOWS, Buffer, Http2

FIELDS = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "x")]


def pair() -> tuple[H2Connection, Http2]:
    """A client and a server that have met, with a stream open in both directions."""
    client, server = H2Connection(H2Configuration()), Http2(10, 100_000, 1_000_000)
    client.initiate_connection()
    client.send_headers(1, FIELDS)
    take(server, client.data_to_send())
    server.send_headers(1, [(":status", "200")])
    client.receive_data(server.data_to_send())
    take(server, client.data_to_send())
    return client, server


def take(server: Http2, data: bytes) -> bytes:
    """Cuts and takes; what came in plain frames."""
    at, plain = 0, b""
    while at < len(data):
        end, stream = server.cut(data, at)
        assert end
        if stream > 0:
            server.received(server.streams[stream], end - at - HEADER_BYTES)
            plain += data[at + HEADER_BYTES : end]
        elif stream != OPENED:
            server.receive_data(data[at:end])
        at = end
    return plain


def test_the_library_still_has_what_is_not_documented() -> None:
    _, server = pair()
    assert getattr(server, WINDOWS[0]).current_window_size == 1_000_000
    assert getattr(server.streams[1], WINDOWS[1]).current_window_size == 100_000
    assert server.outbound_flow_control_window == server.streams[1].outbound_flow_control_window == 65_535


@given(st.lists(st.binary(min_size=1, max_size=2_000), max_size=20))
def test_what_comes_shortens_the_windows_as_the_library_does(pieces: list[bytes]) -> None:
    client, server = pair()
    other_client, other = pair()
    for piece in pieces:
        client.send_data(1, piece)
        other_client.send_data(1, piece)
    assert take(server, client.data_to_send()) == b"".join(pieces)
    other.receive_data(other_client.data_to_send())
    assert server.inbound_flow_control_window == other.inbound_flow_control_window
    assert server.remote_flow_control_window(1) == other.remote_flow_control_window(1)


@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(1, 2**31 - 1)), max_size=5))
def test_windows_open_as_the_library_opens_them(opened: list[tuple[int, int]]) -> None:
    _, server = pair()
    _, other = pair()
    for stream, more in opened:
        frame = WindowUpdateFrame(stream, window_increment=more).serialize()
        ends: list[bool] = []
        for one, receive in ((server, partial(take, server)), (other, other.receive_data)):
            try:
                receive(frame)
            except FlowControlError:
                ends.append(True)
                continue
            ends.append(1 not in one.streams or one.streams[1].closed)
        assert ends[0] == ends[1]
        if ends[0]:
            return
        assert server.local_flow_control_window(1) == other.local_flow_control_window(1)


def test_only_plain_frames_take_the_short_way() -> None:
    client, server = pair()
    client.send_data(1, b"")
    client.send_data(1, b"padded", pad_length=1)
    client.ping(b"12345678")
    client.send_data(1, b"plain")
    client.send_data(1, b"last", end_stream=True)
    assert take(server, client.data_to_send()) == b"plain"


def test_frames_that_are_not_whole_are_not_cut() -> None:
    client, server = pair()
    client.send_data(1, b"some data")
    data = client.data_to_send()
    assert all(server.cut(data[:n], 0) == (0, 0) for n in range(len(data)))
    assert server.cut(data, 0) == (len(data), 1)
    try:
        server.cut(b"\x01\0\0" + data[3:], 0)
    except FrameTooLargeError:
        pass
    else:
        raise AssertionError


def test_a_frame_among_headers_is_the_librarys() -> None:
    _, server = pair()
    headers = b"\0\0\1\1\0\0\0\0\3\x82"  # without END_HEADERS
    data = b"\0\0\1\0\0\0\0\0\1x"
    assert server.cut(headers, 0) == (10, 0)
    assert server.cut(data, 0) == (10, 0)


@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=6), st.lists(st.integers(1, 70_000), max_size=12))
def test_what_goes_out_is_within_the_windows_and_whole(parts: list[bytes], opened: list[int]) -> None:
    client, server = pair()
    rest: list[Buffer] = list(parts)
    got = b""
    for more in [*opened, 300_000]:
        out: list[Buffer] = []
        before = min(server.local_flow_control_window(1), sum(map(len, rest)))
        size = server.send(server.streams[1], rest, out, 1_000_000)
        data = b"".join(out)
        assert len(data) == size
        # The library at the other end finds nothing wrong with them.
        came = b"".join(e.data for e in client.receive_data(data) if isinstance(e, DataReceived))
        assert len(came) == before
        got += came
        if rest:
            client.increment_flow_control_window(more)
            client.increment_flow_control_window(more, 1)
            take(server, client.data_to_send())
    out = []
    server.send(server.streams[1], rest, out, 1_000_000)
    got += b"".join(e.data for e in client.receive_data(b"".join(out)) if isinstance(e, DataReceived))
    assert not rest
    assert got == b"".join(parts)


def test_no_more_than_asked_for_at_a_time() -> None:
    _, server = pair()
    rest: list[Buffer] = [bytes(60_000)]
    out: list[Buffer] = []
    assert server.send(server.streams[1], rest, out, 20_000) == 2 * (16_384 + HEADER_BYTES)
    assert sum(map(len, rest)) == 60_000 - 2 * 16_384
