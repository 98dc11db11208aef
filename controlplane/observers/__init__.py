"""Observers of the event stream. Each observer folds the events of all xDS streams for one purpose.

To add one, write a module here with a subclass of `Observer`, and add a line to the list of observers in `app.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from controlplane.domain.revision import Head
from controlplane.fleet import Node
from controlplane.xds.events import StreamId

# A function of a stream, one of its events, and the time of the event in seconds since the epoch.
Handler = Callable[[StreamId, Any, float], None]


class Observer:
    """A fold of the event stream. Its methods are called on the event loop and must not block.

    Observers are called in the order in which `app.py` lists them. `FleetFold` is the first. So when the other observers get
    an event, the fleet has already applied it, and they can ask the fleet for the node of the stream.
    """

    def handlers(self) -> Mapping[type, Handler]:
        """Return the event types that this observer handles, each with the function to call. Called once."""
        return {}

    def publish(self, head: Head) -> None:
        """Handle a new revision: `head` is served from now on."""

    def members_changed(self, released: Sequence[Node], now: float) -> None:
        """Handle that nodes were released or forgotten, so that they don't count any more."""

    def close(self) -> None:
        """Stop timers, and write what is pending."""
