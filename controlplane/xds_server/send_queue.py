"""Messages of one stream that the client has not taken yet."""

from __future__ import annotations

from collections.abc import Sequence


class SendQueue:
    """A queue with a bound. At the bound it is `full`, and the stream's requests are not read until the client has taken some.

    Only answers to requests can fill the queue. Pushes can't: a push adds at most one message a type, and none while an
    earlier message of the type is not ACKed.
    """

    __slots__ = ("_bytes", "_messages", "full")

    MAX_MESSAGES = 64
    MAX_BYTES = 8 * 1024 * 1024

    def __init__(self) -> None:
        # A list, because there is one for each stream: it is short, and an empty deque takes 700 bytes more.
        self._messages: list[bytes] = []  # at MAX_MESSAGES or MAX_BYTES: `full`, and no request is read
        self._bytes = 0
        self.full = False

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, messages: Sequence[bytes]) -> None:
        """Add messages."""
        self._messages.extend(messages)
        self._bytes += sum(map(len, messages))
        self.full = self._bytes >= self.MAX_BYTES or len(self._messages) >= self.MAX_MESSAGES

    def take(self) -> bytes | None:
        """Remove the oldest message, and return it; None when there is none."""
        if not self._messages:
            return None
        message = self._messages.pop(0)
        self._bytes -= len(message)
        if self.full:
            self.full = self._bytes >= self.MAX_BYTES or len(self._messages) >= self.MAX_MESSAGES
        return message

    def clear(self) -> None:
        """Drop all messages."""
        self._messages.clear()
        self._bytes, self.full = 0, False
