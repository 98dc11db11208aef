"""The messages of one stream that the client has not taken yet."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from controlplane.xds_server.send_queue import SendQueue


def test_messages_are_taken_in_order_and_none_is_left() -> None:
    queue = SendQueue()
    assert not queue.messages
    queue.put([b"1", b"22"])
    queue.put([b"333"])
    assert [queue.take() for _ in range(3)] == [b"1", b"22", b"333"]
    assert not queue.messages


def test_a_queue_is_full_at_its_bounds_and_not_before() -> None:
    queue = SendQueue()
    queue.put([b"x"] * (SendQueue.MAX_MESSAGES - 1))
    assert not queue.full
    queue.put([b"x"])
    assert queue.full
    queue.take()
    assert not queue.full
    queue.clear()
    queue.put([bytes(SendQueue.MAX_BYTES - 1)])
    assert not queue.full
    queue.put([b"x"])
    assert queue.full
    queue.take()
    assert not queue.full


def test_a_cleared_queue_is_empty() -> None:
    queue = SendQueue()
    queue.put([b"x"] * 100)
    queue.clear()
    assert (queue.messages, queue.full) == ([], False)


@given(st.lists(st.one_of(st.none(), st.lists(st.integers(0, SendQueue.MAX_BYTES // 3), max_size=40)), max_size=30))
def test_a_queue_is_full_exactly_while_it_holds_too_many_messages_or_bytes(steps: list[list[int] | None]) -> None:
    queue, model = SendQueue(), deque[bytes]()
    chunk = bytes(SendQueue.MAX_BYTES)
    for sizes in steps:
        if sizes is None:
            if model:
                assert queue.take() == model.popleft()
        else:
            messages = [memoryview(chunk)[:size] for size in sizes]
            queue.put(messages)  # type: ignore[arg-type]  # not copied: only the lengths count
            model.extend(messages)  # type: ignore[arg-type]
        assert len(queue.messages) == len(model)
        assert queue.full == (len(model) >= SendQueue.MAX_MESSAGES or sum(map(len, model)) >= SendQueue.MAX_BYTES)
