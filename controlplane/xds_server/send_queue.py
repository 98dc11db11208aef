"""Messages of one stream that the client has not taken yet."""

from __future__ import annotations

from collections.abc import Sequence


class SendQueue:
    """A queue with a bound. At the bound it is `full`, and the stream's requests are not read until the client has taken some.

    Only answers to requests can fill the queue. Pushes can't: a push adds at most one message a type, and none while an
    earlier message of the type is not ACKed.
    """

    __slots__ = ("messages",)

    MAX_MESSAGES = 64
    MAX_BYTES = 8 * 1024 * 1024

    def __init__(self) -> None:
        # A list, because there is one for each stream: it is short, and an empty deque takes 700 bytes more.
        self.messages: list[bytes] = []  # at MAX_MESSAGES or MAX_BYTES: `full`, and no request is read

    @property
    def full(self) -> bool:
        """Return True at the bound. An empty queue is never full, so callers on the hot path ask for `messages` first."""
        messages = self.messages
        return len(messages) >= self.MAX_MESSAGES or sum(map(len, messages)) >= self.MAX_BYTES

    def put(self, messages: Sequence[bytes]) -> None:
        """Add messages."""
        self.messages += messages

    def take(self) -> bytes:
        """Remove the oldest message, and return it. Errors: IndexError when there is none."""
        return self.messages.pop(0)

    def clear(self) -> None:
        """Drop all messages."""
        self.messages.clear()
