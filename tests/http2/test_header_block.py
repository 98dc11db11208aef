"""Header blocks that arrive in several frames."""

from __future__ import annotations

import pytest

from controlplane.http2.frames import ConnectionFault, ErrorCode
from controlplane.http2.header_block import HeaderBlock


def test_a_block_of_several_frames() -> None:
    block = HeaderBlock()
    assert block.stream == 0
    block.begin(3, end_stream=True)
    assert block.add(b"one", last=False) is None
    assert (block.stream, block.end_stream) == (3, True)
    assert block.add(b"two", last=True) == b"onetwo"
    assert block.stream == 0


@pytest.mark.parametrize(("part", "count"), [(bytes(16_384), 5), (b"", 65)])
def test_a_block_is_bounded(part: bytes, count: int) -> None:
    block = HeaderBlock()
    block.begin(1, end_stream=False)
    for _ in range(count - 1):
        block.add(part, last=False)
    with pytest.raises(ConnectionFault, match="header block of more than 65536 bytes or 64 frames") as caught:
        block.add(part, last=False)
    assert caught.value.reason is ErrorCode.ENHANCE_YOUR_CALM
