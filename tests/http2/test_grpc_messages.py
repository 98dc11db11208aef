"""gRPC's messages in a stream of bytes."""

from __future__ import annotations

import gzip
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.http2.grpc_messages import MAX_DECOMPRESSED, MessageReader
from controlplane.http2.grpc_status import StatusCode, StatusError

MAX_BYTES = 1_000_000


def prefixed(data: bytes, compressed: int = 0) -> bytes:
    return bytes([compressed]) + len(data).to_bytes(4, "big") + data


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(0, 400)))
def test_messages_are_read_however_they_are_cut(sent: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(prefixed, sent))
    at = [0, *sorted(c for c in cuts if c < len(data)), len(data)]
    reader, received = MessageReader(MAX_BYTES), []
    for start, end in itertools.pairwise(at):
        piece = data[start:end]
        if (whole := reader.whole(piece)) is not None:
            received.append(whole)
            continue
        reader.feed(piece)
        while (message := reader.next()) is not None:
            received.append(message)
    assert received == sent
    assert reader.clear() == 0


def refused(reader: MessageReader) -> StatusCode:
    with pytest.raises(StatusError) as caught:
        reader.next()
    return caught.value.status.code


def test_a_message_that_is_too_large_is_refused_at_its_prefix() -> None:
    reader = MessageReader(MAX_BYTES)
    reader.feed(b"\0" + (MAX_BYTES + 1).to_bytes(4, "big"))
    assert refused(reader) is StatusCode.RESOURCE_EXHAUSTED
    packed = MessageReader(MAX_BYTES, "gzip")
    packed.feed(prefixed(gzip.compress(bytes(MAX_BYTES + 1)), 1))
    assert refused(packed) is StatusCode.RESOURCE_EXHAUSTED


def test_gzip() -> None:
    reader = MessageReader(MAX_BYTES, "gzip")
    reader.feed(prefixed(gzip.compress(b"one"), 1) + prefixed(b"two"))
    assert (reader.next(), reader.next(), reader.next()) == (b"one", b"two", None)
    reader.feed(prefixed(b"no", 1))
    assert refused(reader) is StatusCode.INVALID_ARGUMENT
    reader.feed(prefixed(gzip.compress(bytes(1000))[:-9], 1))
    assert refused(reader) is StatusCode.INVALID_ARGUMENT
    reader.feed(prefixed(gzip.compress(bytes(MAX_BYTES)), 1))
    assert reader.next() == bytes(MAX_BYTES)
    plain = MessageReader(MAX_BYTES)
    assert plain.whole(prefixed(b"x", 1)) is None
    plain.feed(prefixed(b"x", 1))
    assert refused(plain) is StatusCode.INTERNAL


def test_buffered_bytes_are_dropped() -> None:
    reader = MessageReader(MAX_BYTES)
    reader.feed(b"\0\0\0")
    assert (reader.next(), reader.clear()) == (None, 3)


@pytest.mark.parametrize("flag", [2, 7, 255])
def test_the_compressed_flag_is_0_or_1(flag: int) -> None:
    reader = MessageReader(MAX_BYTES)
    assert reader.whole(prefixed(b"x", flag)) is None
    reader.feed(prefixed(b"x", flag))
    assert refused(reader) is StatusCode.INTERNAL


def test_a_message_may_have_a_megabyte_after_decompression() -> None:
    reader = MessageReader(16 * MAX_DECOMPRESSED, "gzip")
    reader.feed(prefixed(gzip.compress(bytes(MAX_DECOMPRESSED)), 1))
    assert reader.next() == bytes(MAX_DECOMPRESSED)
    reader.feed(prefixed(gzip.compress(bytes(MAX_DECOMPRESSED + 1)), 1))
    assert refused(reader) is StatusCode.RESOURCE_EXHAUSTED
