"""The events that a stream reports. They are values; whoever receives them adds the node, the stream and the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from controlplane.domain import Locality
from controlplane.snapshot import Audience


@dataclass(frozen=True, slots=True)
class Identified:
    """The first request of a stream named the client. Comes once, before every other event of the stream."""

    id: str
    cluster: str
    # Top level of the node's metadata, as Python values (str, float, bool, None, list, dict).
    metadata: Mapping[str, object] = field(default_factory=dict)
    # For example `envoy 1.40.0`; "" if the client does not send it.
    user_agent: str = ""
    locality: Locality = Locality()


@dataclass(frozen=True, slots=True)
class Held:
    """The client has asked for, was sent, and has ACKed everything that the newest snapshot has for this stream.

    Everything means, for an ADS stream: every resource that follows from the wildcards, and by reference from those resources.
    Comes once for each revision that is reached, also if the revision changed nothing for this stream.
    """

    revision: int


@dataclass(frozen=True, slots=True)
class Settled:
    """As Held, except for resources that stand refused, all of older revisions. Everything newer was ACKed.

    Comes once for each revision; Held may follow. A resource that is to be removed, and may still be used because of what was
    refused, stays.
    """

    revision: int
    # The newest revision of a refused resource; below `revision`.
    since: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """The newest snapshot can't be held: a part of it waits because of what was refused of older ones, not for an answer.

    Comes once for each revision; Settled or Held may follow.
    """

    revision: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A NACK: the client keeps its older resources. The refused content is not sent again before something newer exists."""

    type_url: str
    # Names in the refused response, sorted, at most 100.
    resources: tuple[str, ...]
    # The client's error message.
    message: str
    # Revision of the response's snapshot; the earlier one, if exactly this content was refused before.
    revision: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """A type that was refused is accepted again: a newer content was ACKed, or the newest is what was ACKed since."""

    type_url: str


@dataclass(frozen=True, slots=True)
class Oversized:
    """A response is above gRPC's default limit of 4 MiB and can't be split (SotW, full state). Envoy's own client takes it."""

    type_url: str
    bytes: int


Event = Identified | Held | Settled | Blocked | Refused | Recovered | Oversized


# Unique among the streams of one control plane, and never used again.
StreamId = int


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """A client opened a stream. Its first request will name the client."""

    peer: str  # `ip:port`
    variant: str  # `delta` or `sotw`


@dataclass(frozen=True, slots=True)
class AudienceAssigned:
    """The stream is served the content of this audience from now on."""

    audience: Audience
    # Why the audience does not get more; "" if there is no reason to give.
    note: str = ""


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """The stream ended. It reports nothing afterwards."""


class ClusterLoad(NamedTuple):
    """One client's load on one cluster since its report before. Counts of requests; dropped requests were not sent at all."""

    cluster: str
    issued: int
    succeeded: int
    failed: int
    dropped: int
    active: int  # in progress at the time of the report
    milliseconds: int  # the time in which the requests were counted; 0 if the client does not send it


@dataclass(frozen=True, slots=True)
class ReporterIdentified:
    """The first request of a stream of load reports named the client."""

    node: str


@dataclass(frozen=True, slots=True)
class LoadReported:
    """A load report. Clusters that are not in it had no requests."""

    loads: tuple[ClusterLoad, ...]


LoadEvent = ReporterIdentified | LoadReported


# Everything that a stream can report. The fleet ignores load events, and the traffic ignores all others.
StreamEvent = Event | StreamOpened | AudienceAssigned | StreamClosed | LoadEvent
