"""The revisions that a stream or a node holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from controlplane.xds.events import Held, Settled


class HeldRevisions(NamedTuple):
    """The revisions that a stream or a node holds: those up to `all_of`, and those above `since` and up to `newest`."""

    # The newest revision of which everything was ACKed; 0 before the first.
    all_of: int = 0
    # The newest revision of which everything was ACKed except for resources that were refused in earlier revisions. These
    # earlier revisions are at most `since`. Not below `all_of`.
    newest: int = 0
    since: int = 0

    def __contains__(self, revision: object) -> bool:
        assert isinstance(revision, int)
        return revision <= self.all_of or self.since < revision <= self.newest

    def after(self, event: Held | Settled) -> HeldRevisions:
        """Return the revisions that a stream holds after one more event."""
        if isinstance(event, Held):
            return HeldRevisions(event.revision, event.revision)
        return self if event.revision <= self.all_of else HeldRevisions(self.all_of, event.revision, event.since)

    @classmethod
    def common(cls, streams: Iterable[HeldRevisions]) -> HeldRevisions:
        """Return the revisions that all of several streams hold. If their ranges differ, return the newest common part."""
        held = tuple(streams)
        all_of, newest = min(h.all_of for h in held), min(h.newest for h in held)
        return cls(all_of, newest, max((h.since for h in held if h.all_of < newest), default=0))
