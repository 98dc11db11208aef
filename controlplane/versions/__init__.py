"""The index of published versions: it says which resources a client that comes back holds.

`entry.py` is one version, encoded. `index.py` is the index. `announced.py` has the snapshots that the index does not have yet,
and `resources.py` the versions of single resources. `removed_clusters.py` has the content of removed clusters. The package
does no I/O, and the time is an argument. It compiles nothing: a version that is not in the index stays unknown.
"""

from __future__ import annotations

from controlplane.versions.entry import IndexedVersion
from controlplane.versions.index import TRUSTED_AFTER, VersionChanges, VersionIndex
from controlplane.versions.removed_clusters import ClusterChanges, RemovedClusters

__all__ = ["TRUSTED_AFTER", "ClusterChanges", "IndexedVersion", "RemovedClusters", "VersionChanges", "VersionIndex"]
