"""Events come up: each gets its time, once, and goes to every observer that takes its type, in order.

Nothing below this layer reads the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from controlplane.aio.latest import Latest
from controlplane.domain.revision import Head
from controlplane.fleet import Fleet
from controlplane.observers import Handler, Observer
from controlplane.observers.folds import FLEET_EVENTS
from controlplane.xds.events import StreamEvent, StreamId


class EventDispatcher:
    """Passes the events of all streams to the observers, and wakes the watchers of the fleet."""

    def __init__(self, fleet: Fleet, observers: Sequence[Observer], clock: Callable[[], float] = time.time) -> None:
        """Call the observers in their order, of which the first must be the fold of `fleet`.

        `clock` returns seconds since the epoch.
        """
        self._fleet = fleet
        self._observers = tuple(observers)
        self._clock = clock
        # The fleet. Set after each event that changes it, so that watchers wake; None once the server stops.
        self.changed: Latest[Fleet | None] = Latest(fleet)
        self._open = True
        handlers: dict[type, list[Handler]] = {}
        for observer in self._observers:
            for kind, handler in observer.handlers().items():
                handlers.setdefault(kind, []).append(handler)
        for kind in FLEET_EVENTS:
            handlers.setdefault(kind, []).append(self._on_fleet_changed)
        # By the type of the event. A tuple for each, since this is looked up for every event.
        self._handlers = {kind: tuple(called) for kind, called in handlers.items()}

    def report(self, stream: StreamId, event: StreamEvent, when: float | None = None) -> None:
        """Pass on an event of a stream. `when` is its time in seconds since the epoch; None is now."""
        now = self._clock() if when is None else when
        for handle in self._handlers.get(type(event), ()):
            handle(stream, event, now)

    def publish(self, head: Head) -> None:
        """Let every observer know that `head` is served from now on."""
        for observer in self._observers:
            observer.publish(head)
        if self._open:
            self.changed.set(self._fleet)

    def close(self) -> None:
        """End every watch. Events are still passed on."""
        self._open = False
        for observer in self._observers:
            observer.close()
        self.changed.set(None)

    def _on_fleet_changed(self, stream: StreamId, event: StreamEvent, now: float) -> None:
        if self._open:
            self.changed.set(self._fleet)
