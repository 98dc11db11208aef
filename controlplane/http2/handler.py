"""The contract between a transport, which moves the messages of one call, and the handler that serves it.

There are no tasks and nothing is awaited: each side calls the other.

    the transport calls    `receive_message` for each message while the handler is `reading`
                           `half_closed` after the client's last message
                           `next_message` when there is room for a message
                           `end` when the client is gone
    the handler calls      `notify` when there is a message to send
                           `resume_reading` when it is `reading` again
                           `later` for the rest of a request that takes long
                           `end` once
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from controlplane.http2.grpc_status import Status, StatusCode, StatusError
from controlplane.http2.peer import Peer


class Transport(Protocol):
    """Moves the messages of one call between a client and a handler."""

    def notify(self) -> None:
        """Take the handler's messages, one by one, each when the client has room for it."""

    def resume_reading(self) -> None:
        """Pass on the client's messages again: the handler is `reading`."""

    def later(self, work: Callable[[], None]) -> None:
        """Call `work` when it is the client's turn: expensive requests wait, so that other clients are served."""

    def end(self, status: Status | None) -> None:
        """End the call with this status; None is OK. Called once."""


class StreamHandler(Protocol):
    """Serves one call."""

    # An ended handler ignores every call.
    ended: bool
    # While false, the transport keeps the client's next message back (backpressure).
    reading: bool

    def receive_message(self, data: bytes) -> None:
        """Handle a message of the client. Called only while `reading`."""

    def half_closed(self) -> None:
        """Handle the end of the client's messages."""

    def next_message(self) -> bytes | None:
        """Return the next message for the client; None when there is none. Called when the one before has been sent."""

    def end(self, status: Status | None = None) -> None:
        """End the call: the client is gone (None), or broke the protocol."""

    def fail(self, error: Exception) -> None:
        """End the call because of an exception."""


# Opens the handler of a new call. Errors: StatusError, whose status ends the call.
Open = Callable[[Peer, Transport], StreamHandler]


class GuardedHandler:
    """A handler whose exceptions end its own call, and nothing else."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended = False

    def receive_message(self, data: bytes) -> None:
        """Handle a message of the client. Called only while `reading`."""
        if self.ended:  # the same as `_guarded`, without the cost of a call: this is the hottest path
            return
        try:
            self._receive(data)
        except Exception as error:  # noqa: BLE001  `status_of` logs it
            self.fail(error)

    def end(self, status: Status | None = None) -> None:
        """End the call; None is OK."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """End the call with the status of an exception."""
        self.end(self.status_of(error))

    def status_of(self, error: Exception) -> Status:
        """Return the status of an exception. Subclasses log unexpected exceptions."""
        return error.status if isinstance(error, StatusError) else Status(StatusCode.INTERNAL, "internal error")

    def _receive(self, data: bytes) -> None:
        raise NotImplementedError

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        """Run `work`, unless the call has ended. An exception ends this call, and nothing else."""
        if self.ended:
            return
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001  `status_of` logs it
            self.fail(error)
