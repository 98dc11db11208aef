"""Flow-control windows."""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from hyperframe.frame import WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from controlplane.http2.frames import Buffer, ConnectionFault
from tests.http2.side import FIELDS, pair


@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(0, 2**31 - 1)), max_size=5))
def test_windows_open_as_in_the_h2_library(opened: list[tuple[int, int]]) -> None:
    """Both report an error, or neither does."""
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
            side.receive(frame.serialize())
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
    unsent: list[Buffer] = [bytes(16_000)]
    side.http2.send_data(side.streams[1], unsent, 1 << 20)
    assert not unsent
