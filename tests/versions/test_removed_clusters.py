"""The content of clusters that were removed."""

from __future__ import annotations

import pytest

from controlplane.envoy_types import CLUSTER
from controlplane.snapshot import Resource
from controlplane.versions import RemovedClusters


def cluster(name: str, content: str = "1") -> Resource:
    return Resource.of(CLUSTER, name, content.encode())


def kept(removed: RemovedClusters) -> list[str]:
    return [name for name, _ in removed.all()]


def test_clusters_are_found_by_their_name_and_version() -> None:
    removed, blue, changed = RemovedClusters(), cluster("blue"), cluster("blue", "2")
    removed.add([blue])
    removed.add([changed])
    assert removed.find("blue", blue.version) is blue
    assert removed.find("blue", changed.version) is changed
    assert removed.find("blue", "another version") is None
    assert removed.find("green", blue.version) is None


def test_the_cluster_that_was_removed_longest_ago_is_dropped_at_the_bound_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemovedClusters, "MAX_BYTES", 250)
    removed = RemovedClusters()
    for n in (0, 1, 0, 2):  # 0 is removed again
        removed.add([cluster(f"c{n}", f"{n}" * 100)])
    assert kept(removed) == ["c0", "c2"]
    removed.add([cluster("large", "1" * 251)])
    assert kept(removed) == []


def test_the_number_of_clusters_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemovedClusters, "MAX_CLUSTERS", 3)
    removed = RemovedClusters()
    for n in range(5):
        removed.add([cluster(f"c{n}")])
    assert kept(removed) == ["c2", "c3", "c4"]


def test_a_copy_follows_and_returns_no_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemovedClusters, "MAX_CLUSTERS", 3)
    removed, copy = RemovedClusters(), RemovedClusters()
    removed.add([cluster("c0")])
    copy.follow(removed.all())
    removed.take_changes()
    for n in (1, 2, 3, 1):
        removed.add([cluster(f"c{n}")])
    changes = removed.take_changes()
    assert {name: r is not None for (name, _), r in changes.items()} == {"c0": False, "c1": True, "c2": True, "c3": True}
    copy.follow(changes)
    assert sorted(kept(copy)) == sorted(kept(removed)) == ["c1", "c2", "c3"]
    assert removed.take_changes() == copy.take_changes() == {}
    loaded = RemovedClusters()
    loaded.load(r for r in removed.all().values() if r is not None)
    assert loaded.all() == removed.all()
    assert loaded.take_changes() == {}
