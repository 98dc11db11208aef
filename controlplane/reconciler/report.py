"""Passes the events of the streams to the observers.

Each event gets its time here, so no module below this layer reads the clock. Then each observer that handles the event's type
gets the event, in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from controlplane.aio.latest import Latest
from controlplane.domain.revision import Head
from controlplane.fleet import Fleet, Node
from controlplane.observers import Handler, Observer
from controlplane.observers.folds import ACCESS_EVENTS, FLEET_EVENTS, MESSAGE_EVENTS, TRAFFIC_EVENTS
from controlplane.xds.events import StreamEvent, StreamId


class EventDispatcher:
    """Passes the events of all streams to the observers, and wakes the watchers of the fleet."""

    def __init__(self, fleet: Fleet, observers: Sequence[Observer], clock: Callable[[], float] = time.time) -> None:
        """Call `observers` in their order. The first must be the fold of `fleet`. `clock` returns seconds since the epoch."""
        self._fleet = fleet
        self._observers = tuple(observers)
        self._clock = clock
        # The fleet. It is set after each event that changes the fleet, to wake the watchers. None once the server stops.
        self.changed: Latest[Fleet | None] = Latest(fleet)
        self._open = True
        handlers: dict[type, list[Handler]] = {
            kind: [] for kind in (*FLEET_EVENTS, *MESSAGE_EVENTS, *ACCESS_EVENTS, *TRAFFIC_EVENTS)
        }
        for observer in self._observers:
            for kind, handler in observer.handlers().items():
                handlers[kind].append(handler)
        # By the type of the event: the functions to call, and True if the event changes the fleet.
        self._handlers = {kind: (tuple(functions), kind in FLEET_EVENTS) for kind, functions in handlers.items()}

    def report(self, stream: StreamId, event: StreamEvent, event_time: float | None = None) -> None:
        """Pass an event of a stream to the observers. `event_time` is in seconds since the epoch; None is now."""
        now = self._clock() if event_time is None else event_time
        handlers, changes_fleet = self._handlers[type(event)]
        for handle in handlers:
            handle(stream, event, now)
        if changes_fleet and self._open:
            self.changed.set(self._fleet)

    def publish(self, head: Head) -> None:
        """Tell every observer that `head` is served from now on."""
        for observer in self._observers:
            observer.publish(head)
        if self._open:
            self.changed.set(self._fleet)

    def members_changed(self, released: Sequence[Node], now: float) -> None:
        """Tell every observer that nodes were released or forgotten."""
        for observer in self._observers:
            observer.members_changed(released, now)
        if self._open:
            self.changed.set(self._fleet)

    def close(self) -> None:
        """End every watch. Events are still passed to the observers."""
        self._open = False
        for observer in self._observers:
            observer.close()
        self.changed.set(None)
