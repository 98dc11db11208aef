"""Messages between the main process and its workers, besides `replication.Update`."""

from __future__ import annotations

from dataclasses import dataclass, field

from controlplane.snapshot import Audience
from controlplane.versions import ClusterChanges, VersionChanges
from controlplane.xds.events import StreamEvent, StreamId
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.tls_files import TlsPaths

# ------------------------------------------------------------------------------------------------------ main to worker


@dataclass(frozen=True, slots=True)
class Start:
    """Settings of a worker: the first message. The worker listens once it has an `Update`, too."""

    # 1, 2, 3 …. A worker that replaces another gets the number of the other.
    number: int
    # `HOST:PORT`; the port is not 0.
    address: str
    # The worker's streams have this number and higher ones.
    first_stream: StreamId
    limits: StreamLimits
    # `http2` or `grpc`: see `xds_server/transports.py`.
    transport: str
    log_format: str
    log_level: str
    # The files of TLS, which the worker watches itself; None: no TLS.
    tls: TlsPaths | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """A check that the worker is alive. The worker answers with `Pong`."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call of a method of the worker's `Discovery`. The worker answers with a `Response` of the same number."""

    number: int
    # `reconnect`, `adopt` or `describe`.
    method: str
    node_id: str


@dataclass(frozen=True, slots=True)
class BlockedClients:
    """All node ids and identities that may not connect."""

    clients: frozenset[str]


@dataclass(frozen=True, slots=True)
class Removed:
    """Changes of the removed clusters whose content is kept: all of them first."""

    changes: ClusterChanges = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stop:
    """End: accept no streams, end the open ones with OK within `grace` seconds, then exit."""

    grace: float


# ------------------------------------------------------------------------------------------------- in both directions


@dataclass(frozen=True, slots=True)
class Versions:
    """Changes of the index of published versions: to a worker the whole index first, to main what a stream mixed."""

    changes: VersionChanges = field(repr=False)
    # To a worker: `VersionIndex.vouches`.
    vouches: bool = False


# ------------------------------------------------------------------------------------------------------ worker to main


@dataclass(frozen=True, slots=True)
class Listening:
    """The worker accepts connections."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a `Ping`."""


@dataclass(frozen=True, slots=True)
class SubscribeAudiences:
    """The worker has streams of these audiences, and needs their snapshots."""

    audiences: tuple[Audience, ...]


@dataclass(frozen=True, slots=True)
class UnsubscribeAudience:
    """The worker has dropped this audience: no stream has asked for it for a while."""

    audience: Audience


@dataclass(frozen=True, slots=True)
class Events:
    """Events of the worker's streams, in order: (stream, event, time in seconds since the epoch)."""

    events: list[tuple[StreamId, StreamEvent, float]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a `Request`: the value that the method returned, or None when the worker does not serve yet."""

    number: int
    value: object
