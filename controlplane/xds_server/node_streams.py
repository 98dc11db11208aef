"""The streams of one node: who may be sent something is asked again when another of them has moved on."""

from __future__ import annotations

import asyncio
from typing import Protocol

from controlplane.xds.coordination import Coordination
from controlplane.xds.view import StreamView


class StreamPump(Protocol):
    """A stream's pump."""

    @property
    def core(self) -> StreamView: ...

    # Of an Envoy that takes all over this stream: its address, without the port. "" of others.
    @property
    def host(self) -> str: ...

    def reconsider(self) -> None: ...

    def end(self) -> None: ...


class NodeStreams:
    """A clock and a timer around `Coordination`."""

    def __init__(self, linger: float) -> None:
        self._separate = Coordination(linger)
        # The log says that two Envoys use the node's id.
        self.twins_told = False
        self._members: dict[StreamView, StreamPump] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._members)

    @property
    def cores(self) -> tuple[StreamView, ...]:
        """The open streams, in the order that they came in, to be read."""
        return tuple(self._members)

    def join(self, member: StreamPump) -> None:
        """A stream of the node has opened."""
        self._members[member.core] = member
        self._separate.join(member.core, self._now())

    def leave(self, member: StreamPump) -> None:
        """A stream of the node has closed."""
        del self._members[member.core]
        self._separate.leave(member.core, self._now())
        self._set_timer()

    def end(self) -> None:
        """Ends every stream of the node well; its client opens others."""
        for member in list(self._members.values()):
            member.end()

    def elsewhere(self, member: StreamPump) -> str:
        """The address of another Envoy that takes all under this name; "" when there is none, as there should be."""
        hosts = (other.host for other in self._members.values())
        return next((host for host in hosts if host and host != member.host), "") if member.host else ""

    def tick(self) -> None:
        """A stream of the node is about to be offered something."""
        self._separate.set_time(self._now())

    def offered(self) -> None:
        """A stream of the node was offered something; it may have to wait."""
        self._set_timer()

    def moved(self, member: StreamPump) -> None:
        """The client has said something on a stream: the others that waited look again."""
        self._wake(self._separate.after_request(member.core))

    def _overdue(self) -> None:
        self._separate.set_time(self._now())
        self._wake(self._separate.take_overdue())

    def _wake(self, streams: list[StreamView]) -> None:
        for stream in streams:
            self._members[stream].reconsider()
        self._set_timer()

    def _set_timer(self) -> None:
        """There is one timer at most, for what need not be waited for any longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._separate.next_deadline if self._members else None
        # A little late, so that what is due is past.
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due + 0.01, self._overdue)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
