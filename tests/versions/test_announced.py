"""Snapshots that the index does not have yet."""

from __future__ import annotations

from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.versions.announced import AnnouncedSnapshots


def test_a_snapshot_is_found_by_its_versions_until_it_is_removed() -> None:
    snapshots = [Snapshot.of(n, Audience(), [Resource.of(ROUTES, "r", b"%d" % n)]) for n in (1, 2)]
    announced = AnnouncedSnapshots()
    for snapshot in snapshots:
        announced.add(snapshot)
    first, second = snapshots
    assert announced.find(ROUTES, first.versions[ROUTES]) is first.resources[ROUTES]
    assert announced.has_resource(ROUTES, second.resources[ROUTES]["r"].version)
    assert not announced.has_resource(CLUSTER, second.resources[ROUTES]["r"].version)
    announced.remove(first)
    announced.remove(first)
    assert announced.find(ROUTES, first.versions[ROUTES]) is None
    assert announced.find(ROUTES, second.versions[ROUTES]) is second.resources[ROUTES]
