"""gRPC's messages in a stream of bytes."""

from __future__ import annotations

import gzip
import itertools
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.http2.grpc_messages import MessageReader
from controlplane.http2.grpc_status import StatusCode, StatusError, percent_encoded

MAX_BYTES = 1_000_000


def prefixed(data: bytes, compressed: int = 0) -> bytes:
    return bytes([compressed]) + len(data).to_bytes(4, "big") + data


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(0, 400)))
def test_messages_are_the_same_however_they_are_cut(said: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(prefixed, said))
    at = [0, *sorted(c for c in cuts if c < len(data)), len(data)]
    messages, heard = MessageReader(MAX_BYTES), []
    for start, end in itertools.pairwise(at):
        piece = data[start:end]
        if (whole := messages.whole(piece)) is not None:
            heard.append(whole)
            continue
        messages.feed(piece)
        while (message := messages.next()) is not None:
            heard.append(message)
    assert heard == said
    assert messages.clear() == 0


def refused(messages: MessageReader) -> StatusCode:
    with pytest.raises(StatusError) as caught:
        messages.next()
    return caught.value.status.code


def test_what_is_too_large_is_refused_before_it_is_there() -> None:
    messages = MessageReader(MAX_BYTES)
    messages.feed(b"\0" + (MAX_BYTES + 1).to_bytes(4, "big"))
    assert refused(messages) is StatusCode.RESOURCE_EXHAUSTED
    packed = MessageReader(MAX_BYTES, "gzip")
    packed.feed(prefixed(gzip.compress(bytes(MAX_BYTES + 1)), 1))
    assert refused(packed) is StatusCode.RESOURCE_EXHAUSTED


def test_gzip() -> None:
    messages = MessageReader(MAX_BYTES, "gzip")
    messages.feed(prefixed(gzip.compress(b"one"), 1) + prefixed(b"two"))
    assert (messages.next(), messages.next(), messages.next()) == (b"one", b"two", None)
    messages.feed(prefixed(b"no", 1))
    assert refused(messages) is StatusCode.INVALID_ARGUMENT
    messages.feed(prefixed(gzip.compress(bytes(1000))[:-9], 1))
    assert refused(messages) is StatusCode.INVALID_ARGUMENT
    messages.feed(prefixed(gzip.compress(bytes(MAX_BYTES)), 1))
    assert messages.next() == bytes(MAX_BYTES)
    plain = MessageReader(MAX_BYTES)
    assert plain.whole(prefixed(b"x", 1)) is None
    plain.feed(prefixed(b"x", 1))
    assert refused(plain) is StatusCode.INTERNAL


def test_what_is_left_is_forgotten() -> None:
    messages = MessageReader(MAX_BYTES)
    messages.feed(b"\0\0\0")
    assert (messages.next(), messages.clear()) == (None, 3)


@given(st.text())
def test_a_status_message_is_ascii_and_reads_back(text: str) -> None:
    said = percent_encoded(text)
    assert all(" " <= c <= "~" for c in said)
    assert unquote(said) == text.strip(" ")
