"""One node: its open streams, the revisions that it holds, and what it refuses."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from controlplane.domain import Locality
from controlplane.fleet.claims import Claims, merged
from controlplane.fleet.held_revisions import HeldRevisions
from controlplane.snapshot import Audience
from controlplane.xds.events import Authenticated, Claimed, StreamId

# Number of revisions for which a node's `history` keeps the time when it first held them.
HISTORY = 32


class NodeState(Enum):
    """A node's state, compared with the newest revision. A node that is both refusing and behind is REFUSING."""

    SYNCED = "synced"  # connected, and holds the newest revision
    BEHIND = "behind"  # connected, and has not ACKed all of the newest revision yet
    REFUSING = "refusing"  # connected, and has a NACK that still applies; the node uses the configuration from before it
    GONE = "gone"  # known and not connected (`membership.py`)
    RELEASED = "released"  # not connected, and does not count any more

    # The hash by identity is implemented in C. Enum's own hash is not, and would be much of the cost of an event.
    __hash__ = object.__hash__


class ProgressState(Enum):
    """A node's progress with one revision."""

    REFUSED = "refused"  # a NACK of this revision or of a newer one applies, and the node holds an older revision
    BEHIND = "behind"  # has not ACKed all of the revision yet
    GONE = "gone"  # known and not connected, and did not hold the revision when it disconnected
    RELEASED = "released"  # does not count any more, and did not hold the revision when it disconnected
    HOLDING = "holding"  # has ACKed all of it or of a newer revision, possibly except for resources that it refused earlier


@dataclass(frozen=True, slots=True)
class Refusal:
    """A NACK that still applies: the client has not ACKed anything newer of the type."""

    type_url: str
    resources: tuple[str, ...]
    message: str  # as the client wrote it
    revision: int  # the revision of the refused response
    time: float  # seconds since the epoch
    # The newest revision that the node can't hold because of this NACK; not below `revision`.
    blocked_up_to: int


@dataclass(slots=True, eq=False)
class NodeStream:
    """One open stream of a client."""

    peer: str
    variant: str
    opened: float
    node: Node | None = None  # None until the client has identified itself
    identity: Authenticated | None = None  # None without mutual TLS
    audience: Audience = Audience()
    held: HeldRevisions = HeldRevisions()
    refused: dict[str, Refusal] = field(default_factory=dict)  # by type URL
    # By type URL: what the client said that it holds. None: nothing, or it has ACKed a revision on this stream.
    claims: dict[str, Claimed] | None = None


@dataclass(slots=True, eq=False)
class Node:
    """One node. Times are seconds since the epoch. Read-only outside this module."""

    id: str
    cluster: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict, repr=False)
    user_agent: str = ""
    # `ip:port` of the stream that identified itself last, even if it is closed now.
    peer: str = ""
    locality: Locality = Locality()
    # The identity in the certificate of the stream that identified itself last; "" without mutual TLS.
    identity: str = ""
    # True if many nodes have that identity, by the rule for it.
    shared_identity: bool = False
    # The newest audience that a stream of the node reported. Streams report different audiences only if the client describes
    # the node differently on them.
    audience: Audience = Audience()
    note: str = ""
    # The variants of the open streams, sorted and without duplicates. Once the node is gone: of the stream that closed last.
    variants: tuple[str, ...] = ()
    # All revisions that every open stream holds. There are none from the moment when a new stream identifies itself until that
    # stream holds a revision. Once the node is gone: the value before. It is not remembered over a restart.
    holds: HeldRevisions = HeldRevisions()
    # The time when the first of the open streams was opened; None when the node is gone.
    connect_time: float | None = None
    first_seen: float = 0.0
    # The time of the last message. Messages that cause no event are reported every few seconds.
    last_seen: float = 0.0
    # The time when the last stream was closed; None while the node is connected.
    gone_since: float | None = None
    # The time at which the node is released if it stays away, or was released; None while the node is connected.
    release_time: float | None = None
    # True if the node has ACKed a revision, is remembered, and was neither forgotten nor released (`membership.py`).
    known: bool = False
    # True if the node was not connected since the control plane started. Then its metadata is not known.
    restored: bool = False
    # False while the node should be known but can't be, because of the bounds. Always True if it is not connected.
    remembered: bool = True
    # (revision, time when all streams first held it, as `holds.newest` counts), both ascending; at most HISTORY entries.
    history: list[tuple[int, float]] = field(default_factory=list)
    # Open streams only. An event reads all of them only if they hold different revisions.
    streams: dict[StreamId, NodeStream] = field(default_factory=dict, repr=False)
    # Number of open streams with a NACK that still applies.
    refusing: int = 0

    @property
    def connected(self) -> bool:
        """Return True if the node has an open stream."""
        return bool(self.streams)

    @property
    def own_identity(self) -> str:
        """Return the identity by which the node is counted; "" if it is counted by its id."""
        return "" if self.shared_identity else self.identity

    @property
    def held_revision(self) -> int:
        """Return the newest revision that the node holds, except for resources that it refused earlier; 0 if there is none."""
        return self.holds.newest

    @property
    def gateways(self) -> tuple[str, ...]:
        """Return the labels of the gateways that select the node, sorted."""
        return self.audience.gateways

    @property
    def claims(self) -> Claims | None:
        """Return what the node says that it holds, on streams on which it has ACKed no revision yet. None: nothing."""
        return merged(s.claims for s in self.streams.values() if s.claims)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Return the NACKs of open streams that still apply, sorted by type, and within a type the newest first."""
        refusals = [r for s in self.streams.values() for r in s.refused.values()]
        return tuple(sorted(refusals, key=lambda r: (r.type_url, -r.time)))

    def authenticate(self, proof: Authenticated | None) -> None:
        """Take the identity of a stream of the node."""
        self.identity = "" if proof is None else proof.identity
        self.shared_identity = proof is not None and proof.shared

    def hold_time(self, revision: int) -> float | None:
        """Return the time when the node first held `revision` or a newer one; None if it never did.

        The answer covers only the newest HISTORY revisions that the node held.
        """
        index = bisect_left(self.history, (revision, 0.0))
        return self.history[index][1] if index < len(self.history) else None

    def progress(self, revision: int) -> ProgressState:
        """Return the node's progress with `revision`."""
        if revision in self.holds:
            return ProgressState.HOLDING
        if not self.streams:
            return ProgressState.GONE if self.known else ProgressState.RELEASED
        refused = any(r.blocked_up_to >= revision for s in self.streams.values() for r in s.refused.values())
        return ProgressState.REFUSED if refused else ProgressState.BEHIND

    def common_holds(self, before: HeldRevisions, rising: bool) -> HeldRevisions:
        """Return the revisions that all open streams hold, after an event of a stream that held `before`.

        `rising` is True if that stream now holds at least as much, or is closed. In this case the result does not change while
        another stream still holds `before`.
        """
        streams = self.streams.values()
        # The newest stream first: the streams report one revision in their order, so the newest still holds `before` longest.
        if rising and any(s.held == before for s in reversed(streams)):
            return self.holds
        return HeldRevisions.common(s.held for s in streams)

    def note_held(self, now: float) -> None:
        """Add the newest revision that the node holds to `history`, if it is not there yet."""
        history, newest = self.history, self.holds.newest
        if newest > (history[-1][0] if history else 0):
            history.append((newest, now))
            if len(history) > HISTORY:
                del history[0]
