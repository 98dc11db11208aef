"""Frames that are not written yet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.http2.frames import DATA, HEADER, HEADER_BYTES, Buffer
from controlplane.http2.output import Output
from tests.http2.side import Side


class Counting(Side):
    """Counts the reports of new output."""

    added = 0

    def output_added(self) -> None:
        self.added += 1


def test_whole_frames_are_kept_in_order_and_reported() -> None:
    events = Counting()
    output = Output(events)
    output.add(b"one")
    output.add(b"two")
    assert events.added == 2
    assert output.take() == ([b"one", b"two"], 6)
    assert output.take() == ([], 0)


def test_nothing_follows_the_last_frame() -> None:
    output = Output(Counting())
    output.add(b"goaway")
    output.closed = True
    output.add(b"late")
    assert output.take() == ([b"goaway"], 6)


def test_one_data_frame() -> None:
    output, unsent = Output(Counting()), list[Buffer]([b"ab", b"c"])
    output.add_data_frame(5, unsent, 3)
    assert not unsent
    assert output.take() == ([HEADER.pack(0, 3, DATA, 0, 5), b"ab", b"c"], HEADER_BYTES + 3)


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=6), st.integers(1, 20), st.data())
def test_data_frames_hold_the_first_bytes(parts: list[bytes], max_frame: int, data: st.DataObject) -> None:
    whole = b"".join(parts)
    size = data.draw(st.integers(1, len(whole)))
    output, unsent = Output(Counting()), list[Buffer](parts)
    output.add_data_frames(9, unsent, size, max_frame)
    buffers, total = output.take()
    written, sent = b"".join(buffers), b""
    assert len(written) == total
    while written:
        high, low, kind, flags, number = HEADER.unpack_from(written)
        assert (kind, flags, number) == (DATA, 0, 9)
        length = high << 8 | low
        assert 0 < length <= max_frame
        sent += written[HEADER_BYTES : HEADER_BYTES + length]
        written = written[HEADER_BYTES + length :]
    assert (sent, b"".join(unsent)) == (whole[:size], whole[size:])
