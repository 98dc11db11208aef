"""The content of clusters that were served before, for clients that come back and may still route to them (rule 33).

The index of published versions says which clusters a returning client holds, but it has no bodies. A SotW response with
clusters must contain every cluster that the client is to keep. So the bodies of clusters that a newer snapshot lacks, or has
in another version, stay here for a while.
"""

from __future__ import annotations

from collections import OrderedDict

from controlplane.envoy_types import CLUSTER
from controlplane.snapshot import Audience, DiffCache, Resource, Resources, Snapshot


class RemovedClusters:
    """Clusters that were served and then removed or changed, by name and version.

    Bounds: `MAX_BYTES` of bodies; the cluster that was removed longest ago goes first. The newest clusters of `MAX_AUDIENCES`
    audiences are remembered, to notice a removal; the audience that was served longest ago is forgotten first.
    """

    MAX_BYTES, MAX_AUDIENCES = 8 * 1024 * 1024, 4_096

    def __init__(self, diffs: DiffCache) -> None:
        self._diffs = diffs
        # By audience: the clusters of the newest snapshot that was offered to a stream.
        self._newest: OrderedDict[Audience, Resources] = OrderedDict()
        # By name and version.
        self._removed: OrderedDict[tuple[str, str], Resource] = OrderedDict()
        self._bytes = 0

    def note_offered(self, snapshot: Snapshot) -> None:
        """Note that a snapshot is offered to a stream, and remember the clusters that it does not have any more."""
        clusters = snapshot.resources[CLUSTER]
        before = self._newest.get(snapshot.audience)
        if before is clusters:
            return
        self._newest[snapshot.audience] = clusters
        self._newest.move_to_end(snapshot.audience)
        if len(self._newest) > self.MAX_AUDIENCES:
            self._newest.popitem(last=False)
        if before is not None:
            for name in self._diffs.diff(before, clusters).names:
                if (cluster := before.get(name)) is not None:
                    self._add(cluster)

    def find(self, name: str, version: str) -> Resource | None:
        """Return a cluster of this version; None if it is not known."""
        return self._removed.get((name, version))

    def _add(self, cluster: Resource) -> None:
        key = cluster.name, cluster.version
        if key in self._removed:
            self._removed.move_to_end(key)
            return
        self._removed[key] = cluster
        self._bytes += len(cluster.body)
        while self._bytes > self.MAX_BYTES:
            _, oldest = self._removed.popitem(last=False)
            self._bytes -= len(oldest.body)
