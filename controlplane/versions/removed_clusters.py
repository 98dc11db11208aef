"""The content of removed and changed clusters, for clients that come back and may still route to them (rule 33).

The index of published versions says which clusters a returning client holds, but it has no bodies. A SotW response with
clusters must contain every cluster that the client is to keep. So the bodies of the clusters that were removed last stay here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from controlplane.snapshot import Resource

ClusterKey = tuple[str, str]  # name and version
# By key: clusters that were removed. None: the body was dropped.
ClusterChanges = Mapping[ClusterKey, Resource | None]


class RemovedClusters:
    """Clusters that were removed, by name and version. `take_changes` returns the changes, for copies.

    Bounds: at most `MAX_CLUSTERS` with `MAX_BYTES` of bodies. The cluster that was removed longest ago is dropped first.
    """

    MAX_CLUSTERS, MAX_BYTES = 4_096, 8 * 1024 * 1024

    def __init__(self) -> None:
        # By key, in the order of their last removal.
        self._clusters: OrderedDict[ClusterKey, Resource] = OrderedDict()
        self._bytes = 0
        self._changes: dict[ClusterKey, Resource | None] = {}

    def find(self, name: str, version: str) -> Resource | None:
        """Return the cluster of this version; None if it is not known."""
        return self._clusters.get((name, version))

    def add(self, clusters: Iterable[Resource]) -> None:
        """Add clusters that are removed or changed now."""
        for cluster in clusters:
            key = cluster.name, cluster.version
            self._drop(key)
            self._clusters[key] = self._changes[key] = cluster
            self._bytes += len(cluster.body)
        while len(self._clusters) > self.MAX_CLUSTERS or self._bytes > self.MAX_BYTES:
            self._drop(next(iter(self._clusters)))

    def follow(self, changes: ClusterChanges) -> None:
        """Take over the changes of the copy that this one follows. `take_changes` does not return them."""
        own, self._changes = self._changes, {}
        for key, cluster in changes.items():
            if cluster is None:
                self._drop(key)
            else:
                self.add((cluster,))
        self._changes = own

    def load(self, clusters: Iterable[Resource]) -> None:
        """Take over saved clusters, in the order in which they were removed."""
        self.follow({(c.name, c.version): c for c in clusters})

    def all(self) -> ClusterChanges:
        """Return all clusters, for a copy that has none."""
        return dict(self._clusters)

    def take_changes(self) -> ClusterChanges:
        """Return the changes since the previous call."""
        changes, self._changes = self._changes, {}
        return changes

    def _drop(self, key: ClusterKey) -> None:
        cluster = self._clusters.pop(key, None)
        if cluster is not None:
            self._bytes -= len(cluster.body)
            self._changes[key] = None
