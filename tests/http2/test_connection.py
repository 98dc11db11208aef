"""The server's side of HTTP/2 against a client that is a library's, and against nonsense."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import Frame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from controlplane.http2 import frames
from controlplane.http2.connection import Connection
from controlplane.http2.frames import PREFACE, Buffer, ConnectionFault, ErrorCode
from controlplane.http2.headers import MAX_HEADER_LIST, HeaderReader, encoded
from controlplane.http2.streams import Stream

FIELDS = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "x")]


class Heard:
    """What is said on a stream."""

    def __init__(self) -> None:
        self.data_said, self.padding, self.over, self.gone = b"", 0, False, False

    def data_received(self, data: bytes, padding: int) -> None:
        self.data_said += data
        self.padding += padding

    def end_received(self) -> None:
        self.over = True

    def aborted(self) -> None:
        self.gone = True


class Side:
    """The server's side, and what it was told. Clocks stand still."""

    def __init__(self, streams: int = 10, stream_window: int = 100_000, connection_window: int = 1_000_000) -> None:
        self.http2 = Connection(
            self,
            lambda: 0.0,
            max_streams=streams,
            stream_window=stream_window,
            connection_window=connection_window,
        )
        self.streams: dict[int, Stream] = {}
        self.heard: dict[int, Heard] = {}
        self.fields: dict[int, Mapping[str, str]] = {}
        self.unwanted = 0
        self.left: int | None = None
        self.rest = b""

    def stream_opened(self, stream: Stream, fields: Mapping[str, str]) -> None:
        self.streams[stream.id], self.fields[stream.id] = stream, fields
        self.heard[stream.id] = stream.listener = Heard()

    def settings_received(self) -> None:
        pass

    def window_opened(self) -> None:
        pass

    def goaway_received(self, reason: int) -> None:
        self.left = reason

    def consumed(self, count: int) -> None:
        self.unwanted += count

    def spent(self, seconds: float) -> None:
        pass

    def output_added(self) -> None:
        pass

    def take(self, data: bytes) -> None:
        self.rest = self.http2.receive(self.rest + data)

    @property
    def said(self) -> bytes:
        return b"".join(self.http2.output.take()[0])


def pair(side: Side | None = None, settings: dict[SettingCodes | int, int] | None = None) -> tuple[H2Connection, Side]:
    """A client and a server that have met, with a stream open in both directions."""
    client, side = H2Connection(H2Configuration(header_encoding="utf-8")), side or Side()
    client.initiate_connection()
    if settings:
        client.update_settings(settings)
    client.send_headers(1, FIELDS)
    side.take(client.data_to_send())
    side.http2.send_headers(side.streams[1], ((":status", "200"),))
    client.receive_data(side.said)
    side.take(client.data_to_send())
    return client, side


@given(st.data(), st.lists(st.binary(max_size=2_000), max_size=12))
def test_what_a_client_says_comes_however_it_is_cut(data: st.DataObject, pieces: list[bytes]) -> None:
    client, side = pair()
    for piece in pieces:
        client.send_data(1, piece, pad_length=data.draw(st.none() | st.integers(0, 20)))
    client.send_headers(1, [("some", "trailer")], end_stream=True)
    sent = client.data_to_send()
    while sent:
        size = data.draw(st.integers(1, len(sent)))
        side.take(sent[:size])
        sent = sent[size:]
    assert not side.rest
    assert side.heard[1].data_said == b"".join(pieces)
    assert side.unwanted == side.heard[1].padding
    assert side.heard[1].over
    # It is only this side that has more to say.
    assert 1 in side.http2.streams.by_id
    side.http2.send_headers(side.streams[1], (("grpc-status", "0"),), end=True)
    assert 1 not in side.http2.streams.by_id
    assert not any(isinstance(e, StreamReset) for e in client.receive_data(side.said))


def test_what_is_given_back_may_be_sent_again_and_no_more() -> None:
    client, side = pair(Side(stream_window=70_000, connection_window=80_000))
    client.send_data(1, bytes(16_384))
    client.send_data(1, bytes(16_384))
    side.take(client.data_to_send())
    side.http2.open_window(30_000, side.streams[1])
    side.http2.open_window(25_000)
    client.receive_data(side.said)
    assert client.local_flow_control_window(1) == min(70_000 - 32_768 + 30_000, 80_000 - 32_768 + 25_000)
    room = client.local_flow_control_window(1) // 16_384
    for _ in range(room):
        client.send_data(1, bytes(16_384))
    side.take(client.data_to_send())
    with pytest.raises(ConnectionFault) as caught:
        side.take(frames.frame(frames.DATA, 0, 1, bytes(16_384)))
    assert caught.value.reason is ErrorCode.FLOW_CONTROL_ERROR


@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(0, 2**31 - 1)), max_size=5))
def test_windows_open_as_a_library_opens_them(opened: list[tuple[int, int]]) -> None:
    """Where the library sees an error, so does this."""
    _, side = pair()
    other = H2Connection(H2Configuration(client_side=False))
    client = H2Connection(H2Configuration())
    client.initiate_connection()
    client.send_headers(1, FIELDS)
    other.initiate_connection()
    other.receive_data(client.data_to_send())
    for number, more in opened:
        frame = WindowUpdateFrame(number)
        frame.window_increment = more
        ends: list[bool] = []
        try:
            side.take(frame.serialize())
            ends.append(1 not in side.http2.streams.by_id)
        except ConnectionFault:
            ends.append(True)
        try:
            other.receive_data(frame.serialize())
            ends.append(other.streams[1].closed)
        except (ProtocolError, ValueError):
            ends.append(True)
        assert ends[0] == ends[1]
        if ends[0]:
            return
    rest: list[Buffer] = [bytes(16_000)]
    side.http2.send_data(side.streams[1], rest, 1 << 20)
    assert not rest


@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=6), st.lists(st.integers(1, 70_000), max_size=12))
def test_what_goes_out_is_within_the_windows_and_whole(parts: list[bytes], opened: list[int]) -> None:
    client, side = pair()
    rest: list[Buffer] = list(parts)
    got = b""
    for more in [*opened, 300_000]:
        before = min(client.remote_flow_control_window(1), sum(map(len, rest)))
        side.http2.send_data(side.streams[1], rest, 1_000_000)
        data, size = side.http2.output.take()
        assert sum(map(len, data)) == size
        # The library at the other end finds nothing wrong with them.
        came = b"".join(e.data for e in client.receive_data(b"".join(data)) if isinstance(e, DataReceived))
        assert len(came) == before
        got += came
        if rest:
            client.increment_flow_control_window(more)
            client.increment_flow_control_window(more, 1)
            side.take(client.data_to_send())
    side.http2.send_data(side.streams[1], rest, 1_000_000)
    got += b"".join(e.data for e in client.receive_data(side.said) if isinstance(e, DataReceived))
    assert not rest
    assert got == b"".join(parts)


def test_no_more_than_asked_for_at_a_time() -> None:
    _, side = pair()
    rest: list[Buffer] = [bytes(60_000)]
    side.http2.send_data(side.streams[1], rest, 20_000)
    assert side.http2.output.size == 2 * (16_384 + frames.HEADER_BYTES)
    assert sum(map(len, rest)) == 60_000 - 2 * 16_384


def test_long_headers_go_out_in_pieces_and_any_table_will_do() -> None:
    fields = (("grpc-status", "2"), ("grpc-message", "long" * 20_000))
    client, side = pair(settings={SettingCodes.HEADER_TABLE_SIZE: 0})
    # Where the client has no room for a table either.
    client.decoder.max_allowed_table_size = 0
    side.http2.send_headers(side.streams[1], fields, end=True)
    client.max_inbound_frame_size = 16_384
    client.decoder.max_header_list_size = 1 << 20
    events = client.receive_data(side.said)
    (trailers,) = (e for e in events if isinstance(e, TrailersReceived))
    assert {str(name): str(value) for name, value in trailers.headers} == dict(fields)
    # The client had not said all: it need not.
    (end,) = (e for e in events if isinstance(e, StreamReset))
    assert end.error_code == ErrorCode.NO_ERROR


def test_the_second_block_of_a_connection_means_what_it_would_without_memory() -> None:
    first, second = Encoder(), HeaderReader()
    fields = [*FIELDS, ("user-agent", "someone"), ("x-thing", "value")]
    block = first.encode(fields)
    again = first.encode(fields)
    assert len(again) < len(block)
    for _ in range(2):
        second = HeaderReader()
        assert second.read(block)["x-thing"] == "value"
        assert second.read(again) == second.read(first.encode(fields)) == dict(fields)


def test_a_long_first_block_counts_for_those_after_it() -> None:
    encoder, reader = Encoder(), HeaderReader()
    fields = [*FIELDS, ("x-token", "t" * 2_000)]
    for _ in range(3):
        assert reader.read(encoder.encode(fields)) == dict(fields)


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
def test_malformed_requests_end_their_stream_alone(fields: list[tuple[str, str]]) -> None:
    client, side = pair()
    block = client.encoder.encode(fields)
    for _ in range(2):
        side.take(frames.headers(client.get_next_available_stream_id(), block))
        client.highest_outbound_stream_id += 2
        block = client.encoder.encode(fields)
    assert list(side.fields) == [1]
    kinds = []
    data = side.said
    while data:
        frame, size = Frame.parse_frame_header(memoryview(data[:9]))
        kinds.append((type(frame).__name__, frame.stream_id))
        assert int.from_bytes(data[9:13], "big") == ErrorCode.PROTOCOL_ERROR
        data = data[9 + size :]
    assert kinds == [("RstStreamFrame", 3), ("RstStreamFrame", 5)]
    # What the table is by now is known all the same.
    client.send_headers(7, FIELDS)
    side.take(client.data_to_send())
    assert side.fields[7] == dict(FIELDS)


@pytest.mark.parametrize("sent", [0, 2, 4])
def test_content_length_is_kept(sent: int) -> None:
    client, side = pair()
    client.send_headers(3, [*FIELDS, ("content-length", "3")])
    client.send_data(3, bytes(sent), end_stream=True)
    side.take(client.data_to_send())
    assert side.heard[3].gone
    assert 3 not in side.http2.streams.by_id
    # All of it may be said again: on the connection nothing is lost.
    assert side.unwanted == sent


def test_what_is_said_on_a_stream_that_was_reset_is_taken_and_forgotten() -> None:
    client, side = pair()
    side.http2.reset(side.streams[1], ErrorCode.CANCEL)
    said = side.said
    client.send_data(1, b"on its way", end_stream=True)
    client.send_headers(3, FIELDS)
    side.take(client.data_to_send())
    assert side.unwanted == 10
    assert 3 in side.http2.streams.by_id
    assert not side.heard[1].data_said
    (event,) = (e for e in client.receive_data(said) if isinstance(e, StreamReset))
    assert event.error_code == ErrorCode.CANCEL
    assert not side.said


def test_a_settings_frame_moves_the_windows_of_open_streams() -> None:
    client, side = pair()
    rest: list[Buffer] = [bytes(80_000)]
    side.http2.send_data(side.streams[1], rest, 1 << 20)
    assert sum(map(len, rest)) == 80_000 - 65_535
    client.receive_data(side.said)
    client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10, SettingCodes.MAX_FRAME_SIZE: 1 << 20})
    client.increment_flow_control_window(100_000)
    client.increment_flow_control_window(65_535, 1)
    side.take(client.data_to_send())
    side.http2.send_data(side.streams[1], rest, 1 << 20)
    events = client.receive_data(side.said)
    assert sum(len(e.data) for e in events if isinstance(e, DataReceived)) == 10
    assert sum(map(len, rest)) == 80_000 - 65_535 - 10


def test_frames_are_not_as_large_as_a_client_would_take_them() -> None:
    """One frame is one piece: nothing else can be said until all of it is."""
    client, side = pair(settings={SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1, SettingCodes.MAX_FRAME_SIZE: (1 << 24) - 1})
    client.increment_flow_control_window(2**30)
    side.take(client.data_to_send())
    side.http2.output.take()
    rest: list[Buffer] = [bytes(10_000_000)]
    side.http2.send_data(side.streams[1], rest, 100_000)
    assert side.http2.output.size < 200_000


def test_what_a_settings_frame_says_last_holds() -> None:
    _, side = pair()
    pairs = ((4, 2**31 - 1), (4, 7), (5, 20_000), (5, 16_384))
    side.take(frames.frame(frames.SETTINGS, 0, 0, b"".join(struct.pack(">HL", *pair) for pair in pairs)))
    rest: list[Buffer] = [bytes(100)]
    side.http2.send_data(side.streams[1], rest, 1 << 20)
    assert sum(map(len, rest)) == 93


def test_who_ends_a_stream_with_its_last_data_is_not_asked_to_stop() -> None:
    client, side = pair()
    stream, heard = side.streams[1], side.heard[1]

    class Ends(Heard):
        def data_received(self, data: bytes, padding: int) -> None:
            side.http2.send_headers(stream, (("grpc-status", "0"),), end=True)

    stream.listener = Ends()
    client.send_data(1, b"all", end_stream=True)
    side.take(client.data_to_send())
    assert frames.reset(1, ErrorCode.NO_ERROR) not in side.said
    assert not side.http2.streams.by_id
    assert not heard.over


def test_a_ping_is_answered_and_goodbyes_are_heard() -> None:
    client, side = pair()
    client.ping(b"12345678")
    side.take(client.data_to_send())
    assert side.said == frames.ping(b"12345678", ack=True)
    side.take(frames.ping(b"12345678", ack=True))
    assert not side.said
    client.close_connection(0)
    side.take(client.data_to_send())
    assert side.left == 0
    side.http2.close(ErrorCode.NO_ERROR)
    assert side.http2.closed


def test_unknown_frames_and_settings_are_nothing() -> None:
    client, side = pair()
    side.take(frames.frame(0x42, 0xFF, 1, b"what") + frames.frame(frames.SETTINGS, 0, 0, struct.pack(">HL", 0x99, 7)))
    client.send_data(1, b"still here")
    side.take(client.data_to_send())
    assert side.heard[1].data_said == b"still here"


def test_it_speaks_only_after_the_client_and_settings_come_first() -> None:
    side = Side()
    assert not side.said
    side.take(PREFACE[:5])
    client = H2Connection(H2Configuration())
    client.initiate_connection()
    assert not any(isinstance(e, ConnectionTerminated) for e in client.receive_data(side.said))
    assert client.remote_settings.max_concurrent_streams == 10
    assert client.remote_settings.initial_window_size == 100_000
    assert client.outbound_flow_control_window == 1_000_000


OPEN = frames.settings({}) + frames.headers(1, encoded((*FIELDS,)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frames.ping(), ErrorCode.PROTOCOL_ERROR),
        (frames.SETTINGS_ACK, ErrorCode.PROTOCOL_ERROR),
        (OPEN + frames.frame(frames.DATA, 8, 1, b"\x05abc"), ErrorCode.PROTOCOL_ERROR),
        (OPEN + frames.frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\x02"), ErrorCode.PROTOCOL_ERROR),
        (OPEN + frames.frame(frames.HEADERS, 0, 3) + frames.ping(), ErrorCode.PROTOCOL_ERROR),
        (OPEN + frames.frame(frames.HEADERS, 0, 3) + frames.frame(9, 0, 3) * 64, ErrorCode.ENHANCE_YOUR_CALM),
        (OPEN + frames.frame(frames.HEADERS, 0, 3) + frames.frame(9, 0, 3, bytes(16_384)) * 5, ErrorCode.ENHANCE_YOUR_CALM),
        (OPEN + frames.headers(3, encoded((*FIELDS, ("a", "b" * MAX_HEADER_LIST)))), ErrorCode.ENHANCE_YOUR_CALM),
        (OPEN + frames.headers(3, b"\xff\xff\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
        (OPEN + frames.headers(3, b"\x00\x85\xff"), ErrorCode.COMPRESSION_ERROR),
        (OPEN + frames.headers(2, b"\x82"), ErrorCode.PROTOCOL_ERROR),
        (OPEN + frames.frame(frames.RST_STREAM, 0, 3, bytes(4)), ErrorCode.PROTOCOL_ERROR),
        (OPEN + frames.frame(frames.RST_STREAM, 0, 1, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
        (OPEN + frames.frame(frames.SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
        (OPEN + frames.frame(frames.SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (OPEN + frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 1 << 31}), ErrorCode.FLOW_CONTROL_ERROR),
        (OPEN + frames.settings({frames.Setting.MAX_FRAME_SIZE: 1}), ErrorCode.PROTOCOL_ERROR),
        (OPEN + frames.settings({frames.Setting.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),
        (OPEN + frames.frame(frames.PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
        (OPEN + frames.frame(frames.GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
        (OPEN + frames.window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
        (OPEN + frames.window_update(3, 1), ErrorCode.PROTOCOL_ERROR),
        (OPEN + frames.frame(frames.PRIORITY, 0, 1, b"\0\0\0\1\0"), ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_what_is_not_http2_ends_the_connection(data: bytes, reason: ErrorCode) -> None:
    side = Side()
    with pytest.raises(ConnectionFault) as caught:
        side.take(PREFACE + data)
    assert caught.value.reason is reason


def test_a_client_that_resets_what_it_opens_leaves_nothing() -> None:
    side = Side(streams=2)
    side.take(PREFACE + frames.settings({}))
    block = encoded((*FIELDS,))
    for number in range(1, 2001, 2):
        side.take(frames.headers(number, block) + frames.reset(number, ErrorCode.CANCEL))
    assert not side.http2.streams.by_id
    assert all(h.gone for h in side.heard.values())
    for number in range(2001, 4001, 2):
        side.take(frames.headers(number, block))
    assert len(side.http2.streams.by_id) == 2
    assert len(side.http2.streams._reset) <= 256


class Restless(Heard):
    """Ends a stream, its own or another, whenever it is told something and there is a reason left to do it with."""

    def __init__(self, side: Side, stream: Stream, reasons: list[int]) -> None:
        super().__init__()
        self.side, self.stream, self.reasons = side, stream, reasons

    def _may_end_one(self) -> None:
        assert not self.gone
        http2 = self.side.http2
        if self.reasons and (which := self.reasons.pop()) < 4:
            stream = self.stream if which < 2 else next(iter(http2.streams.by_id.values()), self.stream)
            if which % 2:
                http2.send_headers(stream, ((":status", "200"),), end=True)
            else:
                http2.reset(stream, ErrorCode.CANCEL)

    def data_received(self, data: bytes, padding: int) -> None:
        super().data_received(data, padding)
        self._may_end_one()

    def end_received(self) -> None:
        super().end_received()
        self._may_end_one()

    def aborted(self) -> None:
        self._may_end_one()
        super().aborted()


DATA = st.tuples(st.just(frames.DATA), st.sampled_from([0, 0, 1, 8, 9]), st.binary(max_size=30))
OTHER = st.tuples(st.sampled_from([frames.HEADERS, frames.RST_STREAM, frames.WINDOW_UPDATE]), st.sampled_from([0, 1]))


@given(
    st.lists(st.tuples(st.integers(0, 5), st.one_of(DATA, OTHER.map(lambda kind: (*kind, b"")))), max_size=40),
    st.lists(st.integers(0, 9), max_size=20),
)
def test_every_byte_is_told_of_once_whoever_ends_what(
    said: list[tuple[int, tuple[int, int, bytes]]], reasons: list[int]
) -> None:
    """Or the window of the connection would close for good, a little at a time."""
    side = Side(streams=3)
    listeners: list[Restless] = []

    def stream_opened(stream: Stream, fields: Mapping[str, str]) -> None:
        listeners.append(Restless(side, stream, reasons))
        stream.listener = listeners[-1]

    side.stream_opened = stream_opened  # type: ignore[method-assign]
    side.take(PREFACE + frames.settings({}))
    sent, highest = 0, -1
    for which, (kind, flags, payload) in said:
        number = 2 * min(which, highest) + 1
        if kind == frames.HEADERS or highest < 0:
            highest += 1
            fields = (*FIELDS, *([("content-length", "20")] if which == 1 else []))
            side.take(frames.headers(2 * highest + 1, encoded(fields), end=bool(flags & 1)))
        elif kind == frames.DATA:
            if flags & frames.PADDED:
                payload = bytes([len(payload)]) + 2 * payload
            side.take(frames.frame(kind, flags, number, payload))
            sent += len(payload)
        elif kind == frames.RST_STREAM:
            side.take(frames.reset(number, ErrorCode.CANCEL))
        else:
            side.take(frames.window_update(number, 1_000))
    assert side.unwanted + sum(len(listener.data_said) for listener in listeners) == sent
    assert side.http2._windows.receive == 1_000_000 - sent


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=30)), max_size=20))
def test_nonsense_is_an_error_and_nothing_else(said: list[tuple[int, int, int, bytes]]) -> None:
    side = Side()
    data = PREFACE + frames.settings({}) + b"".join(frames.frame(*frame) for frame in said)
    try:
        side.take(data)
    except ConnectionFault:
        return
    assert not side.rest
    # What it said to that is HTTP/2.
    answer = side.said
    while answer:
        _, size = Frame.parse_frame_header(memoryview(answer[:9]), strict=True)
        answer = answer[9 + size :]


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_blocks_of_nonsense_are_errors_and_nothing_else(one: bytes, two: bytes) -> None:
    reader = HeaderReader()
    for block in (one, two):
        try:
            reader.read(block)
        except (ConnectionFault, frames.StreamFault):
            return
