"""The server's side of a connection, against a client of the h2 library."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, StreamReset, TrailersReceived
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from controlplane.http2 import frames
from controlplane.http2.frames import PREFACE, Buffer, ConnectionFault, ErrorCode
from controlplane.http2.headers import encoded
from controlplane.http2.streams import Stream
from tests.http2.side import FIELDS, Listener, Side, pair


@given(st.data(), st.lists(st.binary(max_size=2_000), max_size=12))
def test_data_arrives_however_it_is_cut(data: st.DataObject, pieces: list[bytes]) -> None:
    client, side = pair()
    for piece in pieces:
        client.send_data(1, piece, pad_length=data.draw(st.none() | st.integers(0, 20)))
    client.send_headers(1, [("some", "trailer")], end_stream=True)
    sent = client.data_to_send()
    while sent:
        size = data.draw(st.integers(1, len(sent)))
        side.receive(sent[:size])
        sent = sent[size:]
    assert not side.unparsed
    assert side.listeners[1].data == b"".join(pieces)
    assert side.unwanted == side.listeners[1].padding
    assert side.listeners[1].ended
    # The server's side of the stream is still open.
    assert 1 in side.http2.streams.by_id
    side.http2.send_headers(side.streams[1], (("grpc-status", "0"),), end=True)
    assert 1 not in side.http2.streams.by_id
    assert not any(isinstance(e, StreamReset) for e in client.receive_data(side.output()))


def test_the_client_may_send_what_windows_permit_and_no_more() -> None:
    client, side = pair(Side(stream_window=70_000, connection_window=80_000))
    client.send_data(1, bytes(16_384))
    client.send_data(1, bytes(16_384))
    side.receive(client.data_to_send())
    side.http2.open_window(30_000, side.streams[1])
    side.http2.open_window(25_000)
    client.receive_data(side.output())
    assert client.local_flow_control_window(1) == min(70_000 - 32_768 + 30_000, 80_000 - 32_768 + 25_000)
    room = client.local_flow_control_window(1) // 16_384
    for _ in range(room):
        client.send_data(1, bytes(16_384))
    side.receive(client.data_to_send())
    with pytest.raises(ConnectionFault) as caught:
        side.receive(frames.frame(frames.DATA, 0, 1, bytes(16_384)))
    assert caught.value.reason is ErrorCode.FLOW_CONTROL_ERROR


@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=6), st.lists(st.integers(1, 70_000), max_size=12))
def test_sent_data_is_within_the_windows_and_complete(parts: list[bytes], increments: list[int]) -> None:
    client, side = pair()
    unsent: list[Buffer] = list(parts)
    got = b""
    for more in [*increments, 300_000]:
        before = min(client.remote_flow_control_window(1), sum(map(len, unsent)))
        side.http2.send_data(side.streams[1], unsent, 1_000_000)
        data, size = side.http2.output.take()
        assert sum(map(len, data)) == size
        # The library at the other end accepts the frames.
        received = b"".join(e.data for e in client.receive_data(b"".join(data)) if isinstance(e, DataReceived))
        assert len(received) == before
        got += received
        if unsent:
            client.increment_flow_control_window(more)
            client.increment_flow_control_window(more, 1)
            side.receive(client.data_to_send())
    side.http2.send_data(side.streams[1], unsent, 1_000_000)
    got += b"".join(e.data for e in client.receive_data(side.output()) if isinstance(e, DataReceived))
    assert not unsent
    assert got == b"".join(parts)


def test_send_data_stops_at_the_limit() -> None:
    _, side = pair()
    unsent: list[Buffer] = [bytes(60_000)]
    side.http2.send_data(side.streams[1], unsent, 20_000)
    assert side.http2.output.size == 2 * (16_384 + frames.HEADER_BYTES)
    assert sum(map(len, unsent)) == 60_000 - 2 * 16_384


def test_long_header_blocks_use_continuation_and_no_dynamic_table() -> None:
    fields = (("grpc-status", "2"), ("grpc-message", "long" * 20_000))
    client, side = pair(settings={SettingCodes.HEADER_TABLE_SIZE: 0})
    # Where the client has no room for a table either.
    client.decoder.max_allowed_table_size = 0
    side.http2.send_headers(side.streams[1], fields, end=True)
    client.max_inbound_frame_size = 16_384
    client.decoder.max_header_list_size = 1 << 20
    events = client.receive_data(side.output())
    (trailers,) = (e for e in events if isinstance(e, TrailersReceived))
    assert {str(name): str(value) for name, value in trailers.headers} == dict(fields)
    # The client need not send the rest of its request (RFC 9113, section 8.1).
    (end,) = (e for e in events if isinstance(e, StreamReset))
    assert end.error_code == ErrorCode.NO_ERROR


def test_frames_for_a_stream_that_was_reset_are_ignored() -> None:
    client, side = pair()
    side.http2.reset(side.streams[1], ErrorCode.CANCEL)
    reset = side.output()
    client.send_data(1, b"on its way", end_stream=True)
    client.send_headers(3, FIELDS)
    side.receive(client.data_to_send())
    assert side.unwanted == 10
    assert 3 in side.http2.streams.by_id
    assert not side.listeners[1].data
    (event,) = (e for e in client.receive_data(reset) if isinstance(e, StreamReset))
    assert event.error_code == ErrorCode.CANCEL
    assert not side.output()


def test_no_rst_stream_if_a_stream_ends_on_its_last_data() -> None:
    client, side = pair()
    stream, listener = side.streams[1], side.listeners[1]

    class Ending(Listener):
        def data_received(self, data: bytes, padding: int) -> None:
            side.http2.send_headers(stream, (("grpc-status", "0"),), end=True)

    stream.listener = Ending()
    client.send_data(1, b"all", end_stream=True)
    side.receive(client.data_to_send())
    assert frames.reset(1, ErrorCode.NO_ERROR) not in side.output()
    assert not side.http2.streams.by_id
    assert not listener.ended


def test_ping_is_answered_and_goaway_reported() -> None:
    client, side = pair()
    client.ping(b"12345678")
    side.receive(client.data_to_send())
    assert side.output() == frames.ping(b"12345678", ack=True)
    side.receive(frames.ping(b"12345678", ack=True))
    assert not side.output()
    client.close_connection(0)
    side.receive(client.data_to_send())
    assert side.goaway == 0
    side.http2.close(ErrorCode.NO_ERROR)
    assert side.http2.closed


def test_the_server_preface_follows_the_first_bytes_of_the_client() -> None:
    side = Side()
    assert not side.output()
    side.receive(PREFACE[:5])
    client = H2Connection(H2Configuration())
    client.initiate_connection()
    assert not any(isinstance(e, ConnectionTerminated) for e in client.receive_data(side.output()))
    assert client.remote_settings.max_concurrent_streams == 10
    assert client.remote_settings.initial_window_size == 100_000
    assert client.outbound_flow_control_window == 1_000_000


class RandomEnds(Listener):
    """Ends a stream at some events. The next of `choices` selects: 0 and 1 its own stream, 2 and 3 another, else none."""

    def __init__(self, side: Side, stream: Stream, choices: list[int]) -> None:
        super().__init__()
        self.side, self.stream, self.choices = side, stream, choices

    def _may_end_one(self) -> None:
        assert not self.was_aborted
        http2 = self.side.http2
        if self.choices and (which := self.choices.pop()) < 4:
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
def test_every_byte_of_data_is_reported_once_whoever_ends_the_stream(
    actions: list[tuple[int, tuple[int, int, bytes]]], choices: list[int]
) -> None:
    """Bytes that are not reported would be missing in the connection's window for ever."""
    side = Side(streams=3)
    listeners: list[RandomEnds] = []

    def stream_opened(stream: Stream, fields: Mapping[str, str]) -> None:
        listeners.append(RandomEnds(side, stream, choices))
        stream.listener = listeners[-1]

    side.stream_opened = stream_opened  # type: ignore[method-assign]
    side.receive(PREFACE + frames.settings({}))
    sent, highest = 0, -1
    for which, (kind, flags, payload) in actions:
        number = 2 * min(which, highest) + 1
        if kind == frames.HEADERS or highest < 0:
            highest += 1
            fields = (*FIELDS, *([("content-length", "20")] if which == 1 else []))
            side.receive(frames.headers(2 * highest + 1, encoded(fields), end=bool(flags & 1)))
        elif kind == frames.DATA:
            if flags & frames.PADDED:
                payload = bytes([len(payload)]) + 2 * payload
            side.receive(frames.frame(kind, flags, number, payload))
            sent += len(payload)
        elif kind == frames.RST_STREAM:
            side.receive(frames.reset(number, ErrorCode.CANCEL))
        else:
            side.receive(frames.window_update(number, 1_000))
    assert side.unwanted + sum(len(listener.data) for listener in listeners) == sent
    assert side.http2._windows.receive == 1_000_000 - sent
