"""One object for equal resources, so that a worker's audiences share memory."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.snapshot import Resource, Snapshot

# The pool is not pruned below this many resources.
_SMALL = 1_000


class ResourcePool:
    """The newest resource of each type and name, of all audiences."""

    def __init__(self) -> None:
        self._resources: dict[tuple[str, str], Resource] = {}  # above `_bound` resources, `prune` drops those in no snapshot
        self._bound = _SMALL

    def __len__(self) -> int:
        return len(self._resources)

    def intern(self, resource: Resource) -> Resource:
        """Return the pool's object that is equal to `resource`. If there is none, add `resource` and return it."""
        key = resource.type_url, resource.name
        pooled = self._resources.get(key)
        if pooled is not None and pooled.version == resource.version:
            return pooled
        self._resources[key] = resource
        return resource

    def prune(self, snapshots: Iterable[Snapshot]) -> None:
        """Keep only the resources of these snapshots, when the pool has doubled since it was pruned last."""
        if len(self._resources) <= self._bound:
            return
        # By identity: most mappings are the same object in several snapshots.
        mappings = {id(resources): resources for snapshot in snapshots for resources in snapshot.resources.values()}
        self._resources = {(r.type_url, r.name): r for resources in mappings.values() for r in resources.values()}
        self._bound = max(_SMALL, 2 * len(self._resources))
