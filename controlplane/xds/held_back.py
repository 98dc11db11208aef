"""Hold back a client of another history: send nothing that would take something from it.

A client comes with a version that this history never made: the store was lost or is another one, a backup was restored, or
another control plane served the client. If the newest revision lacks something that the client says it holds, the client would
lose it, and nobody has agreed to that. So the stream sends nothing, as before the first revision, and the client keeps what it
has. This lasts until one of these things happens:

    a revision that has it all      the client loses nothing by it
    `adopt`                         an operator has decided that the client gets the newest revision

So a client of another history never loses anything by itself, and never stands in the way of a change for the other clients.

A client that loses nothing is not held back, nor is any client while the index of published versions can't vouch that an
unknown version is one of another history, nor a client that came before the first revision: that revision was checked against
what the client holds (`compiler/reach.py`).

Known flaws:
- Clusters that were sent before the first request that names a foreign version stay sent. They only add or change clusters.
- The first revision may be committed in the moment when a client comes. Then it was not checked against what the client holds.
"""

from __future__ import annotations

from copy import copy

from controlplane.snapshot import NOTHING, Snapshot
from controlplane.versions import VersionIndex
from controlplane.xds.events import Claimed, Event, HeldBack

_MOST_NAMES = 100


class HoldBack:
    """The judgement of one stream."""

    __slots__ = ("_claims", "_judged", "_reported")

    def __init__(self) -> None:
        # Type URLs of the claims that were taken.
        self._judged: frozenset[str] = frozenset()
        # The claims because of which the client may have to be held back.
        self._claims: tuple[Claimed, ...] = ()
        # The event that was reported last, if the client is held back.
        self._reported: HeldBack | None = None

    @property
    def active(self) -> bool:
        """True while the client is held back."""
        return self._reported is not None

    def fork(self) -> HoldBack:
        """Return a copy."""
        return copy(self)

    def judge(self, claim: Claimed, snapshot: Snapshot, index: VersionIndex) -> list[Event]:
        """Take a claim, the first of its type. Return it, and the event if the client is held back from now on."""
        if claim.type_url in self._judged:
            return [claim]
        self._judged |= {claim.type_url}
        if snapshot.revision and index.vouches and (claim.unknown_version or any(_lost(claim, snapshot))):
            self._claims += (claim,)
        return [claim, *self._judge_all(snapshot, index)] if self._claims else [claim]

    def offer(self, snapshot: Snapshot, index: VersionIndex) -> list[Event]:
        """Judge a held-back client again, because there is a new snapshot. Return the event if something changed."""
        return self._judge_all(snapshot, index) if self.active else []

    def adopt(self) -> list[Event]:
        """Hold the client back no longer. Return the event."""
        self._claims = ()
        return self._report(None)

    def _judge_all(self, snapshot: Snapshot, index: VersionIndex) -> list[Event]:
        # A worker process learns a moment later than others that this history made a version.
        if all(not c.unknown_version or index.has(c.type_url, c.unknown_version) for c in self._claims):
            return self._report(None)
        losses = [_lost(claim, snapshot) for claim in self._claims]
        names = sorted((c.type_url, n) for c, (lost, _) in zip(self._claims, losses, strict=True) for n in lost)
        unknown = any(may_lose_more for _, may_lose_more in losses)
        if not names and not unknown:
            return self._report(None)
        return self._report(HeldBack(snapshot.revision, tuple(names[:_MOST_NAMES]), len(names[_MOST_NAMES:]), unknown))

    def _report(self, event: HeldBack | None) -> list[Event]:
        if event == self._reported:
            return []
        self._reported = event
        return [event or HeldBack(0)]


def _lost(claim: Claimed, snapshot: Snapshot) -> tuple[list[str], bool]:
    """Return the names that a client holds and a snapshot does not have, and whether the client may lose more than these."""
    if claim.names is None:
        return [], claim.version != snapshot.versions.get(claim.type_url)
    there = snapshot.resources.get(claim.type_url, NOTHING)
    return [name for name in claim.names if name not in there], False
