"""The caches and the nonce counter that the streams of one process share."""

from __future__ import annotations

import itertools

from controlplane.snapshot import DiffCache
from controlplane.versions import VersionIndex
from controlplane.xds.overlay import ReferenceCache
from controlplane.xds.wire import Encoder


class Context:
    """Shared by all streams of a process. Their owner makes one. Each cache states its own bound."""

    __slots__ = ("_nonces", "diffs", "encoder", "references", "versions")

    def __init__(self, diffs: DiffCache | None = None, versions: VersionIndex | None = None) -> None:
        self.diffs = diffs if diffs is not None else DiffCache()
        self.references = ReferenceCache()
        # It says which resources a returning client holds.
        self.versions = versions if versions is not None else VersionIndex()
        self.encoder = Encoder()
        self._nonces = itertools.count(1)

    def next_nonce(self) -> int:
        """Return a nonce that is greater than all earlier ones, so no nonce is used for two responses."""
        return next(self._nonces)
