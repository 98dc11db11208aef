"""Batches of events and subscriptions, so that a worker sends many of them in one message to the main process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from controlplane.snapshot import Audience
from controlplane.workers.messages import Events, SubscribeAudiences
from controlplane.xds.events import Held, StreamEvent, StreamId

# Events that follow the first one within this time go in the same message. Seconds.
GATHER_TIME = 0.002


class EventBatcher:
    """Events of a worker's streams, each with the time at which it was added."""

    def __init__(self, send: Callable[[Events], None], first_stream: StreamId) -> None:
        self._send = send
        self._first_stream = first_stream
        self._events: list[
            tuple[StreamId, StreamEvent, float]
        ] = []  # unbounded within GATHER_TIME; `Link` bounds the unsent bytes
        self._newest_held = Held(0)

    def add(self, stream: StreamId, event: StreamEvent) -> None:
        """Add an event of a stream, which the worker numbers from 1."""
        if not self._events:
            asyncio.get_running_loop().call_later(GATHER_TIME, self.flush)
        # Thousands of streams report that they hold the same revision. They share one event, so that pickle writes it once.
        if isinstance(event, Held):
            if event.revision != self._newest_held.revision:
                self._newest_held = event
            event = self._newest_held
        self._events.append((self._first_stream + stream, event, time.time()))

    def flush(self) -> None:
        """Send all events now."""
        if self._events:
            self._send(Events(self._events))
            self._events = []


class SubscriptionBatcher:
    """Audiences to subscribe to, gathered for one turn of the event loop."""

    def __init__(self, send: Callable[[SubscribeAudiences], None]) -> None:
        self._send = send
        self._audiences: list[Audience] = []

    def add(self, audience: Audience) -> None:
        """Add an audience."""
        if not self._audiences:
            asyncio.get_running_loop().call_soon(self.flush)
        self._audiences.append(audience)

    def flush(self) -> None:
        """Send all audiences now."""
        if self._audiences:
            self._send(SubscribeAudiences(tuple(self._audiences)))
            self._audiences.clear()
