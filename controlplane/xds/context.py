"""The caches and the nonce counter that the streams of one process share."""

from __future__ import annotations

import itertools

from controlplane.snapshot import DiffCache
from controlplane.xds.overlay import ReferenceCache
from controlplane.xds.wire import Encoder


class Context:
    """Made once a process, by the owner of its streams. Each cache states its own bound."""

    __slots__ = ("_nonces", "diffs", "encoder", "references")

    def __init__(self, diffs: DiffCache | None = None) -> None:
        self.diffs = diffs if diffs is not None else DiffCache()
        self.references = ReferenceCache()
        self.encoder = Encoder()
        self._nonces = itertools.count(1)

    def next_nonce(self) -> int:
        """Return a nonce above all earlier ones. It never comes again: streams in the same state are sent the same bytes."""
        return next(self._nonces)
