"""What carries a stream and what serves it, as they see each other.

There are two that serve: a pump of xDS (`pump.py`), and one of load reports (`lrs_pump.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from controlplane.errors import Code, Error

log = structlog.get_logger("xds")


class Transport(Protocol):
    """What carries the messages of one stream."""

    def notify(self) -> None:
        """There is something to take. To be taken one by one, the next when the client has room for it."""

    def resume_reading(self) -> None:
        """The handler reads again, after a pause."""

    def end(self, error: Error | None) -> None:
        """The stream is over: well, or with an error that the client is to be told. Called once."""


class StreamHandler(Protocol):
    """A stream, as its transport sees it: a pump of xDS, or one of load reports (`lrs_pump.py`)."""

    # Nothing is done with a stream that has ended.
    ended: bool
    # Whether the next message may be received (`receive_message`).
    reading: bool

    def receive_message(self, data: bytes) -> None:
        """Takes in a message. Not to be called while `reading` is false."""

    def half_closed(self) -> None:
        """The client says no more."""

    def next_message(self) -> bytes | None:
        """What is to be sent next; None when there is nothing. Call it when the message before is out of the way."""

    def end(self, error: Error | None = None) -> None:
        """The client is gone, or must go."""

    def fail(self, error: Exception) -> None:
        """Something went wrong on the way."""


class GuardedHandler:
    """What serves a stream: whatever goes wrong in it ends it, and nothing else."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        # Nothing is done with a stream that has ended.
        self.ended = False

    def receive_message(self, data: bytes) -> None:
        """Takes in a message. Not to be called while `reading` is false."""
        if self.ended:  # as `_guarded`, with a call less: this is where most of the time goes
            return
        try:
            self._receive(data)
        except Exception as error:  # noqa: BLE001  it is logged there
            self.fail(error)

    def end(self, error: Error | None = None) -> None:
        """Ends the stream."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Ends the stream with what went wrong. Of what is not an `Error`, the log has all and the client nothing."""
        if not isinstance(error, Error):
            log.error("stream failed", exc_info=error)
            error = Error(Code.INTERNAL, "INTERNAL", "something went wrong in the control plane; its log says what")
        self.end(error)

    def _receive(self, data: bytes) -> None:
        raise NotImplementedError

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        """Whatever goes wrong inside ends this stream, and nothing else."""
        if self.ended:
            return
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001  it is logged there
            self.fail(error)
