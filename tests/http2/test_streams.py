"""The states of streams, as a conversation and as the table of the module."""

from __future__ import annotations

import pytest

from controlplane.http2.frames import DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, ConnectionFault, ErrorCode, StreamFault
from controlplane.http2.streams import State, Streams


def streams() -> Streams:
    """Return streams in each state: 1 CLOSED, 3 RESET, 5 HALF_CLOSED, 7 OPEN, 9 IDLE."""
    result = Streams()
    for number in (1, 3, 5, 7):
        result.last_id = number
        result.open(number, 100, 200)
    result.close(1)
    result.reset(3)
    result.by_id[5].half_closed = True
    return result


NUMBERS = {State.CLOSED: 1, State.RESET: 3, State.HALF_CLOSED: 5, State.OPEN: 7, State.IDLE: 9}


@pytest.mark.parametrize("state", list(State))
def test_each_state(state: State) -> None:
    assert streams().state(NUMBERS[state]) is state


@pytest.mark.parametrize("number", [0, 2, 4, 8, 10])
def test_streams_that_a_client_can_not_open_are_idle(number: int) -> None:
    assert streams().state(number) is State.IDLE


CONNECTION, STREAM = ConnectionFault, StreamFault
PROTOCOL_ERROR, STREAM_CLOSED = ErrorCode.PROTOCOL_ERROR, ErrorCode.STREAM_CLOSED


@pytest.mark.parametrize(
    ("kind", "state", "fault", "reason"),
    [
        (DATA, State.IDLE, CONNECTION, PROTOCOL_ERROR),
        (RST_STREAM, State.IDLE, CONNECTION, PROTOCOL_ERROR),
        (WINDOW_UPDATE, State.IDLE, CONNECTION, PROTOCOL_ERROR),
        (HEADERS, State.HALF_CLOSED, STREAM, STREAM_CLOSED),
        (DATA, State.HALF_CLOSED, STREAM, STREAM_CLOSED),
        (HEADERS, State.CLOSED, CONNECTION, STREAM_CLOSED),
        (DATA, State.CLOSED, STREAM, STREAM_CLOSED),
    ],
)
def test_frames_that_are_a_fault(
    kind: int, state: State, fault: type[ConnectionFault | StreamFault], reason: ErrorCode
) -> None:
    with pytest.raises(fault) as caught:
        streams().accept(kind, NUMBERS[state])
    assert isinstance(caught.value, ConnectionFault | StreamFault)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (HEADERS, State.IDLE),
        *((kind, State.RESET) for kind in (HEADERS, DATA, RST_STREAM, WINDOW_UPDATE)),
        *((kind, State.CLOSED) for kind in (RST_STREAM, WINDOW_UPDATE)),
    ],
)
def test_frames_that_are_for_no_open_stream(kind: int, state: State) -> None:
    assert streams().accept(kind, NUMBERS[state]) is None


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        *((kind, State.OPEN) for kind in (HEADERS, DATA, RST_STREAM, WINDOW_UPDATE)),
        *((kind, State.HALF_CLOSED) for kind in (RST_STREAM, WINDOW_UPDATE)),
    ],
)
def test_frames_for_an_open_stream(kind: int, state: State) -> None:
    these = streams()
    stream = these.accept(kind, NUMBERS[state])
    assert stream is these.by_id[NUMBERS[state]]
    assert stream is not None
    assert these.holds(stream)


def test_the_number_of_reset_streams_that_are_remembered_is_bounded() -> None:
    these = Streams()
    for number in range(1, 2_001, 2):
        these.last_id = number
        these.open(number, 0, 0)
        these.reset(number)
    assert these.state(1) is State.CLOSED
    assert these.state(1_999) is State.RESET
    assert len(these._reset) == 256
