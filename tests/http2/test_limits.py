"""Bounds of a connection."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.http2.frames import INITIAL_WINDOW, MAX_WINDOW
from controlplane.http2.limits import ConnectionLimits


@given(st.integers(0, 512 * 1024 * 1024))
def test_two_of_the_largest_messages_fit_into_the_window_of_a_connection(max_message_bytes: int) -> None:
    limits = ConnectionLimits(max_message_bytes=max_message_bytes)
    assert 2 * max_message_bytes + limits.window_update_bytes <= limits.connection_window
    assert INITIAL_WINDOW < limits.connection_window <= MAX_WINDOW
