"""What a stream reports upwards. Values only; whoever receives them adds the node, the stream and the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from controlplane.domain import Locality
from controlplane.snapshot import Audience


@dataclass(frozen=True, slots=True)
class Identified:
    """The first request of a stream said who the client is. Comes once, before every other event of the stream."""

    id: str
    cluster: str
    # Top level of the node's metadata, as Python values (str, float, bool, None, list, dict).
    metadata: Mapping[str, object] = field(default_factory=dict)
    # Like `envoy 1.40.0`; "" when the client did not say.
    user_agent: str = ""
    locality: Locality = Locality()


@dataclass(frozen=True, slots=True)
class Held:
    """All that the newest offered snapshot has for this stream has been asked for, sent and ACKed.

    All means: for an ADS stream, every resource that follows from the wildcards, and from them by reference. Comes once for
    each revision that is reached, also when the revision changed nothing for this stream.
    """

    revision: int


@dataclass(frozen=True, slots=True)
class Settled:
    """As Held, but for what stands refused, which is all of older revisions: everything newer has been taken.

    Once for each revision; Held may follow. What is to be removed and may still be used, because of what was refused, stays.
    """

    revision: int
    # Newest revision that something which stands refused is of; below `revision`.
    since: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """The newest offered snapshot can't be held: a part of it waits for what was refused of older ones, not for an answer.

    Once for each revision; Settled or Held may follow.
    """

    revision: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A NACK: the client keeps what it had of this type. Nothing of it is sent again until there is something newer."""

    type_url: str
    # Names in the response that was refused, sorted, at most 100.
    resources: tuple[str, ...]
    # The client's words.
    message: str
    # Revision of the snapshot that the response was of; the earlier one, if just this content was refused before.
    revision: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """A type that was refused is accepted again: something newer was ACKed, or the newest is what was ACKed since."""

    type_url: str


@dataclass(frozen=True, slots=True)
class Oversized:
    """A response is above gRPC's default limit of 4 MiB and can't be split (SotW, full state). Envoy's own client takes it."""

    type_url: str
    bytes: int


Event = Identified | Held | Settled | Blocked | Refused | Recovered | Oversized


# Differs between the streams of one control plane; never used again.
StreamId = int


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """A client opened a stream; who it is comes with its first request."""

    peer: str  # `ip:port`
    variant: str  # `delta` or `sotw`


@dataclass(frozen=True, slots=True)
class AudienceAssigned:
    """What the stream is served from now on."""

    audience: Audience
    # Why that is not more; "" when there is nothing to say.
    note: str = ""


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """The stream ended. Nothing comes of it afterwards."""


class ClusterLoad(NamedTuple):
    """What one client sent to one cluster since its report before. Counts of requests; drops were not sent at all."""

    cluster: str
    issued: int
    succeeded: int
    failed: int
    dropped: int
    active: int  # under way when it was reported
    milliseconds: int  # that the counts are of; 0 when the client does not say


@dataclass(frozen=True, slots=True)
class ReporterIdentified:
    """The first request of a stream said whose reports it brings."""

    node: str


@dataclass(frozen=True, slots=True)
class LoadReported:
    """A report. Clusters that are not in it had no requests."""

    loads: tuple[ClusterLoad, ...]


LoadEvent = ReporterIdentified | LoadReported


# Everything that a stream can report. The fleet ignores load events, and the traffic ignores all but them.
StreamEvent = Event | StreamOpened | AudienceAssigned | StreamClosed | LoadEvent
