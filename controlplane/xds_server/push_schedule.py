"""The order and the pace of pushes, as decisions without I/O. Times are seconds of a monotonic clock.

order      a stream that was slow, or had nothing to send because it waits for an ACK, is pushed to after the others
slices     a push to many streams is interrupted now and then, so that the event loop does other work
flushes    what was written is sent after each `FLUSH_SIZE` streams
idle time  after a push that took long, no push begins for twice as long
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

# A push is interrupted after this time. It is longer where the transport flushes the pushed messages during the push: other
# work is then mostly to read ACKs, and the last client should not wait for the ACKs of the first. A push to 1,000 clients
# takes 20 ms, and to 5,000 clients 70 ms, or more when other programs use the processor.
PUSH_TIME_SLICE = 0.005
PUSH_TIME_SLICE_WITH_FLUSH = 0.1

# Turns of the event loop between two slices. A call of an operator needs a few.
TURNS_BETWEEN_SLICES = 3

# The messages of this many streams are flushed together, which takes a millisecond or two. With fewer, the kernel would wake
# the readers on the same machine at each write, and they would take the processor from the server.
FLUSH_SIZE = 256

# A stream to which a push took longer than this is deprioritised.
SLOW_PUSH = 0.005

# Idle time is spent in steps of this length. A push that took less than half of one needs none. Idle time is limited so that
# changes are not delayed for longer.
IDLE_STEP = 0.005
LONGEST_IDLE = 0.2


class Prioritised(Protocol):
    """A stream that is pushed to."""

    @property
    def deprioritised(self) -> bool: ...


StreamT = TypeVar("StreamT", bound=Prioritised)


def push_order(streams: Iterable[StreamT]) -> list[StreamT]:
    """Return the streams in the order in which they are pushed to: in the given order, and deprioritised ones last."""
    return sorted(streams, key=lambda stream: stream.deprioritised)


class IdleTime:
    """Time after a push in which changes can be made.

    No change is made while a push runs. Without idle time, changes that operators make together would each be pushed to all
    streams. A nap that took twice as long as planned does not count, because the event loop was busy, mostly with ACKs.
    """

    def __init__(self, push_seconds: float, now: float) -> None:
        self._remaining = 2 * push_seconds
        self._deadline = now + LONGEST_IDLE

    def is_over(self, now: float) -> bool:
        """Return True if the next push may begin."""
        return self._remaining <= IDLE_STEP or now >= self._deadline

    def record_nap(self, seconds: float) -> None:
        """Record a nap that took this long."""
        if seconds < 2 * IDLE_STEP:
            self._remaining -= IDLE_STEP
