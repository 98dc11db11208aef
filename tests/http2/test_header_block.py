"""Header blocks that arrive in several frames."""

from __future__ import annotations

import pytest

from controlplane.http2.frames import ConnectionFault, ErrorCode
from controlplane.http2.header_block import HeaderBlock


def test_a_block_of_several_frames() -> None:
    block = HeaderBlock(3, b"one", end_stream=True)
    block.add(b"two")
    assert (block.stream, block.end_stream, block.received) == (3, True, b"onetwo")


@pytest.mark.parametrize(("part", "count"), [(bytes(16_384), 5), (b"", 65)])
def test_a_block_is_bounded(part: bytes, count: int) -> None:
    block = HeaderBlock(1, part, end_stream=False)
    for _ in range(count - 2):
        block.add(part)
    with pytest.raises(ConnectionFault, match="header block of more than 65536 bytes or 64 frames") as caught:
        block.add(part)
    assert caught.value.reason is ErrorCode.ENHANCE_YOUR_CALM
