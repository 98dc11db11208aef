"""Header blocks: decoded, checked and encoded."""

from __future__ import annotations

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from controlplane.http2 import frames
from controlplane.http2.frames import ConnectionFault, ErrorCode, StreamFault
from controlplane.http2.headers import HeaderReader, checked, content_length, encoded
from tests.http2.side import FIELDS


def test_a_second_block_may_refer_to_the_first() -> None:
    first, second = Encoder(), HeaderReader()
    fields = [*FIELDS, ("user-agent", "someone"), ("x-thing", "value")]
    block = first.encode(fields)
    again = first.encode(fields)
    assert len(again) < len(block)
    for _ in range(2):
        second = HeaderReader()
        assert second.read(block)["x-thing"] == "value"
        assert second.read(again) == second.read(first.encode(fields)) == dict(fields)


def test_a_long_first_block_is_decoded_like_others() -> None:
    encoder, reader = Encoder(), HeaderReader()
    fields = [*FIELDS, ("x-token", "t" * 2_000)]
    for _ in range(3):
        assert reader.read(encoder.encode(fields)) == dict(fields)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_random_blocks_are_faults_and_nothing_else(one: bytes, two: bytes) -> None:
    reader = HeaderReader()
    for block in (one, two):
        try:
            reader.read(block)
        except (ConnectionFault, frames.StreamFault):
            return


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([*FIELDS, ("Upper", "x")], "invalid field name b'Upper'"),
        ([*FIELDS, ("a b", "c")], "invalid field name b'a b'"),
        ([*FIELDS, (":status", "200")], "invalid field name b':status'"),
        ([*FIELDS, ("connection", "close")], "forbidden header field connection"),
        ([*FIELDS, ("te", "gzip")], "forbidden header field te"),
        ([*FIELDS, (":path", "/y")], "repeated pseudo-header field :path"),
        ([("a", "b"), *FIELDS], "pseudo-header field :method after regular fields"),
        ([*FIELDS, ("a", "b\r\nc")], "invalid value of header field a"),
        ([*FIELDS, ("a", " b")], "invalid value of header field a"),
        (FIELDS[:2], "missing pseudo-header field :path"),
        ([*FIELDS[:2], (":path", "")], "missing pseudo-header field :path"),
    ],
)
def test_a_malformed_request_is_a_stream_fault(fields: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(StreamFault) as caught:
        checked((name.encode(), value.encode()) for name, value in fields)
    assert (caught.value.reason, str(caught.value)) == (ErrorCode.PROTOCOL_ERROR, message)


def test_trailers_have_no_pseudo_header_fields() -> None:
    assert checked([(b"a", b"b")], trailers=True) == {"a": "b"}
    with pytest.raises(StreamFault, match="pseudo-header field :path in trailers"):
        checked([(b":path", b"/")], trailers=True)


def test_of_repeated_fields_the_last_one_counts() -> None:
    assert checked([*((n.encode(), v.encode()) for n, v in FIELDS), (b"a", b"1"), (b"a", b"2")])["a"] == "2"


@pytest.mark.parametrize("text", ["-1", "x", "", "1e3", "\u0663"])
def test_an_invalid_content_length_is_a_stream_fault(text: str) -> None:
    with pytest.raises(StreamFault, match="invalid content-length"):
        content_length(text, end_stream=False)


def test_two_different_content_lengths_are_a_stream_fault() -> None:
    fields = [(name.encode(), value.encode()) for name, value in FIELDS]
    length, other = (b"content-length", b"12"), (b"content-length", b"13")
    assert checked([*fields, length, length])["content-length"] == "12"
    with pytest.raises(StreamFault, match="two different values of content-length"):
        checked([*fields, length, other])


def test_a_content_length() -> None:
    assert content_length("12", end_stream=False) == 12
    assert content_length("0", end_stream=True) == 0
    with pytest.raises(StreamFault, match="is not 0"):
        content_length("12", end_stream=True)


@given(st.lists(st.tuples(st.from_regex("[a-z][a-z-]{0,20}", fullmatch=True), st.text("abc 123", max_size=40).map(str.strip))))
def test_encoded_blocks_can_be_decoded_in_any_order(fields: list[tuple[str, str]]) -> None:
    forbidden = {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "te"}
    fields = [(name, value) for name, value in fields if name not in forbidden]
    reader = HeaderReader()
    assert reader.read(encoded((*FIELDS,))) == dict(FIELDS)
    assert reader.read(encoded((*fields,)), trailers=True) == dict(fields)
    assert reader.read(encoded((*FIELDS,))) == dict(FIELDS)
