"""Hold back a client of another history: send nothing that would take something from it.

A client comes with a version that this history never made: the store was lost or is another one, a backup was restored, or
another control plane served the client. If the newest revision lacks something that the client says it holds, the client would
lose it, and nobody has agreed to that. So the stream sends nothing, as before the first revision, and the client keeps what it
has. This lasts until one of these things happens:

    a newer revision is offered     it was checked against what the client says it holds (`compiler/reach.py`)
    `adopt`                         an operator has decided that the client gets the newest revision

Each type is judged once: at its first request. A client that loses nothing is not held back, nor is any client while the index
of published versions can't vouch that an unknown version is one of another history.

Known flaws:
- Clusters that were sent before the first request that names a foreign version stay sent. They only add or change clusters.
- A revision that is committed in the moment when the client comes may have been checked without what the client holds.
"""

from __future__ import annotations

from copy import copy
from itertools import islice

from controlplane.snapshot import NOTHING, Snapshot
from controlplane.xds.events import Claimed, Event, HeldBack

_MOST_NAMES = 100


class HoldBack:
    """The judgement of one stream."""

    __slots__ = ("_foreign", "_judged", "_lost", "_unknown", "revision")

    def __init__(self) -> None:
        # The revision at which the client is held back; 0: it is not.
        self.revision = 0
        # True once a request named a version of another history.
        self._foreign = False
        # (type URL, name) of what the client would lose.
        self._lost: frozenset[tuple[str, str]] = frozenset()
        # True if the client may hold anything of some type.
        self._unknown = False
        # Type URLs of the claims that were judged.
        self._judged: frozenset[str] = frozenset()

    def fork(self) -> HoldBack:
        """Return a copy."""
        return copy(self)

    def judge(self, claim: Claimed, snapshot: Snapshot, *, vouches: bool) -> list[Event]:
        """Take a claim. `vouches`: the index can tell which versions are those of another history. Return the events."""
        if claim.type_url in self._judged:
            return [claim]
        self._judged |= {claim.type_url}
        if not snapshot.revision or not vouches:
            return [claim]
        held = snapshot.resources.get(claim.type_url, NOTHING)
        self._foreign = self._foreign or bool(claim.unknown_version)
        self._unknown = self._unknown or claim.names is None
        lost = self._lost | {(claim.type_url, name) for name in claim.names or () if name not in held}
        grown, self._lost = lost != self._lost or claim.names is None, lost
        if not self._foreign or not (self._lost or self._unknown) or (self.revision and not grown):
            return [claim]
        self.revision = snapshot.revision
        named = tuple(islice(sorted(lost), _MOST_NAMES))
        return [claim, HeldBack(self.revision, named, len(lost) - len(named), self._unknown)]

    def release(self, newest: int = 0) -> list[Event]:
        """Hold the client back no longer. `newest`: only if the revision that is offered is newer. Return the event."""
        if not self.revision or (newest and newest <= self.revision):
            return []
        self.revision, self._foreign, self._lost, self._unknown = 0, False, frozenset(), False
        return [HeldBack(0)]
