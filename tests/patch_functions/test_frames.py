"""Frames between the server and a child."""

from __future__ import annotations

import os

import pytest

from controlplane.patch_functions import frames


def test_frames_come_as_they_were_sent() -> None:
    reading, writing = os.pipe()
    frames.send(writing, b"", b"a", b"b" * 10_000)
    assert [frames.receive(reading, 1) for _ in range(3)] == [b"", b"a", b"b" * 10_000]
    os.write(writing, b"\0\0\0\2x")
    os.close(writing)
    with pytest.raises(frames.Closed):
        frames.receive(reading)


def test_a_frame_that_does_not_come_and_one_that_is_too_long() -> None:
    reading, writing = os.pipe()
    with pytest.raises(frames.TooLate):
        frames.receive(reading, 0.01)
    os.write(writing, b"\xff\xff\xff\xff")
    with pytest.raises(frames.Closed, match=r"4,294,967,295 bytes"):
        frames.receive(reading, 1)
