"""The content of clusters that were served before."""

from __future__ import annotations

import pytest

from controlplane.envoy_types import CLUSTER
from controlplane.snapshot import Audience, DiffCache, Resource, Snapshot
from controlplane.xds.removed_clusters import RemovedClusters

EDGE, OTHER = Audience(("edge",)), Audience(("other",))


def cluster(name: str, content: str = "1") -> Resource:
    return Resource.of(CLUSTER, name, content.encode())


def snapshot(revision: int, *clusters: Resource, audience: Audience = EDGE) -> Snapshot:
    return Snapshot.of(revision, audience, clusters)


def test_removed_and_changed_clusters_are_found_by_their_version() -> None:
    removed, blue, green = RemovedClusters(DiffCache()), cluster("blue"), cluster("green")
    removed.note_offered(snapshot(1, blue, green))
    assert removed.find("blue", blue.version) is None
    removed.note_offered(snapshot(2, cluster("green", "2")))
    assert removed.find("blue", blue.version) is blue
    assert removed.find("green", green.version) is green
    assert removed.find("green", "another version") is None


def test_each_audience_has_clusters_of_its_own() -> None:
    removed, blue = RemovedClusters(DiffCache()), cluster("blue")
    removed.note_offered(snapshot(1, blue))
    removed.note_offered(snapshot(1, cluster("green"), audience=OTHER))
    assert removed.find("blue", blue.version) is None
    removed.note_offered(snapshot(2))
    assert removed.find("blue", blue.version) is blue


def test_the_clusters_that_were_removed_first_are_dropped_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemovedClusters, "MAX_BYTES", 250)
    removed, clusters = RemovedClusters(DiffCache()), [cluster(f"c{n}", f"{n}" * 100) for n in range(4)]
    for revision in range(4):
        removed.note_offered(snapshot(revision + 1, *clusters[revision:]))
    assert [removed.find(c.name, c.version) for c in clusters] == [None, *clusters[1:3], None]


def test_the_audience_that_was_served_first_is_forgotten_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemovedClusters, "MAX_AUDIENCES", 1)
    removed, blue, green = RemovedClusters(DiffCache()), cluster("blue"), cluster("green")
    removed.note_offered(snapshot(1, blue))
    removed.note_offered(snapshot(1, green, audience=OTHER))
    removed.note_offered(snapshot(2))
    removed.note_offered(snapshot(2, audience=OTHER))
    assert removed.find("blue", blue.version) is None
