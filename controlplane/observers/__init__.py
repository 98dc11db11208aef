"""Observers of the event stream: each folds the events of all xDS streams, for one purpose of its own.

To add one, write a module here with a subclass of `Observer`, and add a line to the list of observers in `app.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controlplane.domain.revision import Head
from controlplane.xds.events import StreamId

# Called with a stream, one of its events, and the time of the event in seconds since the epoch.
Handler = Callable[[StreamId, Any, float], None]


class Observer:
    """A fold of the event stream. Its methods are called on the event loop and must not block.

    Observers are called in the order in which `app.py` lists them. The fold of the fleet is the first, so that the others can
    ask the fleet for the node of a stream and find the event already applied.
    """

    def handlers(self) -> Mapping[type, Handler]:
        """Return the event types that this observer takes, each with the function to call. Asked for once."""
        return {}

    def publish(self, head: Head) -> None:
        """Take note that `head` is served from now on."""

    def close(self) -> None:
        """Stop timers, and write what is pending."""
