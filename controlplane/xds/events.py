"""The events that a stream reports. They are values; whoever receives them adds the node, the stream and the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from controlplane.domain import Locality
from controlplane.snapshot import Audience


@dataclass(frozen=True, slots=True)
class Identified:
    """The first request of a stream named the client. Reported once, before every other event of the stream."""

    id: str
    cluster: str
    # Top level of the node's metadata, as Python values (str, float, bool, None, list, dict).
    metadata: Mapping[str, object] = field(default_factory=dict)
    # For example `envoy 1.40.0`; "" if the client does not send it.
    user_agent: str = ""
    locality: Locality = Locality()


@dataclass(frozen=True, slots=True)
class Held:
    """The client has subscribed to everything that the newest snapshot has for this stream, and has ACKed all of it.

    For an ADS stream, everything means: the resources that the wildcards contain, and the resources that those name.
    Reported once for each revision that the client reaches, also if the revision changed nothing for this stream.
    """

    revision: int


@dataclass(frozen=True, slots=True)
class Settled:
    """The client holds the newest snapshot, except for resources of older revisions that it refused.

    It has ACKed everything newer. Reported once for each revision; `Held` may follow. A resource that should be removed stays
    while a refused resource may still use it.
    """

    revision: int
    # The newest revision of a refused resource; below `revision`.
    since: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """The client can't hold the newest snapshot: a part of it waits because the client refused something older.

    No answer of the client is due. Reported once for each revision; `Settled` or `Held` may follow.
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
    # Revision of the response's snapshot. If exactly this content was refused before: the revision of the first refusal.
    revision: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """Nothing of a type is refused any more.

    The client ACKed newer content, or the newest snapshot has the content that the client ACKed after the NACK.
    """

    type_url: str


@dataclass(frozen=True, slots=True)
class Oversized:
    """A response is above gRPC's default limit of 4 MiB and can't be split (SotW, full state). Envoy's own client takes it."""

    type_url: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """The first request of a type says that the client holds resources from an earlier stream, and not the newest ones.

    Reported for listeners, clusters, scopes and routes, at most once for each stream, type and snapshot. It is not reported if
    the client already holds the newest snapshot's resources of the type.
    """

    type_url: str
    # Names of the resources that the client may hold. None: unknown, so it may hold anything.
    names: frozenset[str] | None
    # A version that the index of published versions does not have; "" if it has all, and for scopes.
    unknown_version: str = ""
    # If `names` is None: the version of the type that the client holds.
    version: str = ""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The client holds configuration of another history, so it is sent nothing (`held_back.py`).

    Reported again if a later request says that the client would lose more.
    """

    # The revision that would take something from the client; 0: the client is not held back any more.
    revision: int
    # (type URL, name) of what the client says that it holds and the revision does not have, sorted, at most 100.
    lost: tuple[tuple[str, str], ...] = ()
    # Names that `lost` leaves out.
    omitted: int = 0
    # True if it is not known what the client holds of some type, so it may lose anything.
    unknown: bool = False


Event = Identified | Held | Settled | Blocked | Refused | Recovered | Oversized | Claimed | HeldBack


# Unique among the streams of one control plane, and never used again.
StreamId = int


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """A client opened a stream. Its first request will name the client."""

    peer: str  # `ip:port`
    variant: str  # `delta` or `sotw`


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The client's certificate proves this identity. Reported before `Identified`, with mutual TLS only."""

    identity: str
    # True if the rule of the identity says that many nodes have it.
    shared: bool = False


@dataclass(frozen=True, slots=True)
class AudienceAssigned:
    """The stream is served the content of this audience from now on."""

    audience: Audience
    # Why the audience does not get more; "" if there is no reason to give.
    note: str = ""


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """The stream ended. It reports nothing afterwards."""


@dataclass(frozen=True, slots=True)
class LastMessage:
    """The client's last message came `ago` seconds before this event. Reported every few seconds if there was one."""

    ago: float


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


@dataclass(frozen=True, slots=True)
class AccessRefused:
    """A client was refused. Without a stream, as at a handshake, the event comes with the stream 0."""

    # `handshake`, `certificate`, `claim`, `blocked`, or why its connection was closed, like `too many frames`.
    cause: str
    # The client's address.
    client: str
    reason: str


# Everything that a stream can report. The fleet ignores load events, and the traffic ignores all others.
StreamEvent = Event | LastMessage | StreamOpened | Authenticated | AudienceAssigned | StreamClosed | LoadEvent | AccessRefused
