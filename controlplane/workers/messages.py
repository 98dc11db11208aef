"""What the main process and its workers say to each other, besides `feed.Update`."""

from __future__ import annotations

from dataclasses import dataclass, field

from controlplane.snapshot import Audience
from controlplane.xds.events import StreamEvent, StreamId
from controlplane.xds_server.limits import StreamLimits

# ------------------------------------------------------------------------------------------------------ main to worker


@dataclass(frozen=True, slots=True)
class Start:
    """Comes first. The worker listens once it has a world, too."""

    # 1, 2, 3 …: which of the workers it is; one that takes another's place has its number.
    number: int
    # `HOST:PORT`; the port is not 0.
    address: str
    # Its streams are numbered from here.
    first_stream: StreamId
    limits: StreamLimits
    # What carries the streams: see `transports.py`.
    transport: str
    log_form: str
    log_level: str


@dataclass(frozen=True, slots=True)
class Call:
    """Something to be answered about a node; or just to be answered, by who is there."""

    number: int
    # `reconnect` or `describe`, methods of `Discovery`; "" for neither.
    method: str = ""
    node_id: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """No new streams; those that are open end well, within `grace` seconds, and then the worker does."""

    grace: float


# ------------------------------------------------------------------------------------------------------ worker to main


@dataclass(frozen=True, slots=True)
class Listening:
    """It serves."""


@dataclass(frozen=True, slots=True)
class Ask:
    """There are streams of these audiences."""

    audiences: tuple[Audience, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """There is none any more, and has not been for a while."""

    audience: Audience


@dataclass(frozen=True, slots=True)
class Reports:
    """What became of its streams, in order: the stream, what it was, when (seconds since the epoch)."""

    reports: list[tuple[StreamId, StreamEvent, float]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """To a `Call`: what the method returned, None for neither."""

    number: int
    value: object
