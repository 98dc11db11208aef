"""Snapshots that are served, and are not in the index yet."""

from __future__ import annotations

from controlplane.snapshot import NOTHING, Resources, Snapshot


class AnnouncedSnapshots:
    """The newest snapshots, until they are in the index, a moment later.

    Bounded by the snapshots that were served in that moment: `VersionIndex.add` removes each of them.
    """

    def __init__(self) -> None:
        self._snapshots: list[Snapshot] = []

    def add(self, snapshot: Snapshot) -> None:
        """Add a snapshot that is served from now on."""
        self._snapshots.append(snapshot)

    def remove(self, snapshot: Snapshot) -> None:
        """Remove a snapshot that is in the index now. Does nothing if it was not announced."""
        self._snapshots = [s for s in self._snapshots if s is not snapshot]

    def find(self, type_url: str, version: str) -> Resources | None:
        """Return the resources of a version; None if no snapshot has it."""
        return next((s.resources[type_url] for s in self._snapshots if s.versions.get(type_url) == version), None)

    def has_resource(self, type_url: str, resource_version: str) -> bool:
        """Return whether a snapshot has a resource of this version."""
        mappings = (s.resources.get(type_url, NOTHING) for s in self._snapshots)
        return any(r.version == resource_version for resources in mappings for r in resources.values())
