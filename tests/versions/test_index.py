"""The index of published versions."""

from __future__ import annotations

import pytest

from controlplane.envoy_types import CLUSTER, ENDPOINTS, INDEXED, LISTENER, ROUTES
from controlplane.snapshot import Audience, Resource, Resources, Snapshot, type_version
from controlplane.versions import IndexedVersion, VersionIndex
from controlplane.versions import resources as module

EDGE, OTHER = Audience(("edge",)), Audience(("other",))


def resources(models: int, switched: dict[str, str] | None = None) -> list[Resource]:
    """Return the resources of some models, each on version `blue` or as `switched` says."""
    made = [Resource.of(LISTENER, "0.0.0.0:80", b"listener")]
    for i in range(models):
        name = f"m{i}"
        version = (switched or {}).get(name, "blue")
        made.append(Resource.of(ROUTES, name, f"{name} to {version}".encode(), [(CLUSTER, f"{name}/{version}")]))
        made += [
            Resource.of(CLUSTER, f"{name}/{v}", f"{name}/{v}".encode(), [(ENDPOINTS, f"{name}/{v}")])
            for v in ("blue", "green")
        ]
    return made


def snapshot(revision: int, models: int = 3, switched: dict[str, str] | None = None, audience: Audience = EDGE) -> Snapshot:
    return Snapshot.of(revision, audience, resources(models, switched))


def same(found: Resources | None, expected: Resources) -> bool:
    """Return whether an answer has exactly these names, versions and references."""
    return found is not None and {(r.name, r.version, r.refs) for r in found.values()} == {
        (r.name, r.version, r.refs) for r in expected.values()
    }


def knows(index: VersionIndex, snapshot: Snapshot) -> bool:
    return all(same(index.find(t, snapshot.versions[t]), snapshot.resources[t]) for t in INDEXED)


def test_each_version_that_was_served_is_found_with_its_names_and_references() -> None:
    index = VersionIndex()
    history = [snapshot(n + 1, 40, {f"m{i}": "green" for i in range(n)}) for n in range(30)]
    for s in history:
        index.add(s, s.revision)
    assert all(knows(index, s) for s in history)
    assert index.find(ROUTES, history[0].versions[ROUTES])["m0"].refs == {(CLUSTER, "m0/blue")}  # type: ignore[index]
    assert index.find(ROUTES, history[5].versions[ROUTES])["m0"].refs == {(CLUSTER, "m0/green")}  # type: ignore[index]


def test_an_unknown_version_is_not_found_and_an_empty_state_is() -> None:
    index = VersionIndex()
    index.add(snapshot(1), 1.0)
    assert index.find(ROUTES, "1") is None
    assert index.find(ROUTES, "") is None
    assert index.find(ENDPOINTS, snapshot(1).versions[ENDPOINTS]) is None
    assert index.find(CLUSTER, type_version(())) == {}


def test_an_answer_is_decoded_once_for_many_clients() -> None:
    index = VersionIndex()
    index.add(snapshot(1), 1.0)
    version = snapshot(1).versions[ROUTES]
    assert index.find(ROUTES, version) is index.find(ROUTES, version)


def test_a_switch_among_thousands_of_models_adds_a_few_hundred_bytes() -> None:
    index = VersionIndex()
    index.add(snapshot(1, 2_000), 1.0)
    before = index.bytes
    for n in range(20):
        index.add(snapshot(n + 2, 2_000, {f"m{i}": "green" for i in range(n + 1)}), 1.0)
    assert len(index.entries()) == 3 + 20
    assert index.bytes - before < 20 * 1_000


def test_versions_of_resources_are_known() -> None:
    index = VersionIndex()
    first, second = snapshot(1), snapshot(2, switched={"m1": "green"})
    index.add(first, 1.0)
    old, new = (s.resources[ROUTES]["m1"].version for s in (first, second))
    assert index.made(ROUTES, old)
    assert not index.made(ROUTES, new)
    assert not index.made(CLUSTER, old)
    index.add(second, 2.0)
    assert index.made(ROUTES, old)
    assert index.made(ROUTES, new)
    assert not index.made(ROUTES, "v12 of another control plane")
    assert not index.made(ENDPOINTS, old)


def test_audiences_with_equal_content_share_an_entry() -> None:
    index = VersionIndex()
    index.add(snapshot(1), 1.0)
    count = len(index.entries())
    index.add(snapshot(1, audience=OTHER), 1.0)
    assert len(index.entries()) == count


def test_going_back_adds_nothing() -> None:
    index = VersionIndex()
    index.add(snapshot(1), 1.0)
    index.add(snapshot(2, switched={"m1": "green"}), 2.0)
    index.take_changes()
    index.add(snapshot(3), 3.0)
    assert index.take_changes() == {}


def test_the_bound_drops_the_oldest_and_never_what_is_served_or_a_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VersionIndex, "MAX_VERSIONS", 20)
    index = VersionIndex()
    history = [snapshot(n + 1, 100, {f"m{i}": "green" for i in range(n)}) for n in range(60)]
    for s in history:
        index.add(s, float(s.revision))
        assert len(index.entries()) <= 20
    assert index.find(ROUTES, history[1].versions[ROUTES]) is None
    assert all(knows(index, s) for s in history[-10:])
    # The versions that were dropped were superseded before this time.
    assert 35.0 < index.known_since < 60.0


def test_the_bound_holds_with_more_audiences_than_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VersionIndex, "MAX_VERSIONS", 20)
    index = VersionIndex()
    for n in range(40):
        index.add(snapshot(1, n + 1, audience=Audience((f"g{n}",))), float(n))
        assert len(index.entries()) <= 20
    assert index.known_since == 39.0
    assert knows(index, snapshot(1, 40))


def test_the_bound_on_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VersionIndex, "MAX_BYTES", 20_000)
    index = VersionIndex()
    for n in range(40):
        index.add(snapshot(n + 1, 40 + 10 * n), float(n))
    assert index.bytes <= 20_000
    assert index.bytes == sum(len(e.content) for e in index.entries().values() if e is not None)


def test_a_restart_loses_nothing() -> None:
    saved = VersionIndex()
    history = [snapshot(n + 1, 40, {f"m{i}": "green" for i in range(n)}) for n in range(30)]
    for s in history:
        saved.add(s, s.revision)
    index = VersionIndex()
    index.load(e for e in saved.take_changes().values() if e is not None)
    assert index.take_changes() == {}
    assert all(knows(index, s) for s in history)
    assert index.made(ROUTES, history[3].resources[ROUTES]["m0"].version)
    # Later versions are relative to the newest one.
    index.add(history[-1], 100.0)
    later = snapshot(31, 40, {f"m{i}": "green" for i in range(30)})
    index.add(later, 101.0)
    changes = [e for e in index.take_changes().values() if e is not None]
    assert [(e.type_url, e.version, e.base) for e in changes] == [
        (ROUTES, later.versions[ROUTES], history[-1].versions[ROUTES])
    ]
    assert all(knows(index, s) for s in (*history, later))


def test_after_many_restarts_a_version_is_a_whole_one_again() -> None:
    entries: dict[tuple[str, str], IndexedVersion] = {}
    bases = []
    for n in range(12):
        index = VersionIndex()
        index.load(entries.values())
        index.add(snapshot(n, 40, {f"m{i}": "green" for i in range(n)}), n)
        index.add(snapshot(n + 1, 40, {f"m{i}": "green" for i in range(n + 1)}), n)
        changes = [e for e in index.take_changes().values() if e is not None and e.type_url == ROUTES]
        bases.append([bool(e.base) for e in changes])
        entries |= {e.key: e for e in changes}
        assert all(knows(index, snapshot(1, 40, {f"m{i}": "green" for i in range(i)})) for i in range(n + 1))
    assert bases[:7] == [[False, True], [True], [True], [True], [True], [False, True], [True]]


def test_a_copy_that_takes_the_changes_gives_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VersionIndex, "MAX_VERSIONS", 20)
    index, copy = VersionIndex(), VersionIndex()
    history = [snapshot(n + 1, 100, {f"m{i}": "green" for i in range(n)}) for n in range(60)]
    for s in history:
        index.add(s, s.revision)
        copy.follow(index.take_changes())
    assert copy.take_changes() == {}
    assert copy.entries() == index.entries()
    assert [knows(copy, s) for s in history] == [knows(index, s) for s in history]


def test_a_version_that_a_stream_mixed_is_known_once() -> None:
    index = VersionIndex()
    index.add(snapshot(1), 1.0)
    index.take_changes()
    clusters = {r.name: r for r in resources(4) if r.type_url == CLUSTER}
    version, newest = type_version(clusters.values()), snapshot(1)
    for _ in range(2):
        index.add_mixed(CLUSTER, version, clusters, newest.versions[CLUSTER], newest.resources[CLUSTER])
    index.add_mixed(ENDPOINTS, "v", {}, newest.versions[ENDPOINTS], newest.resources[ENDPOINTS])
    assert same(index.find(CLUSTER, version), clusters)
    assert list(index.take_changes()) == [(CLUSTER, version)]


def test_resources_of_dropped_entries_are_forgotten_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VersionIndex, "MAX_VERSIONS", 20)
    monkeypatch.setattr(module, "MORE_RESOURCES", 50)
    index = VersionIndex()
    for n in range(300):
        index.add(snapshot(n + 1, 3, {"m0": f"v{n}"}), float(n))
    assert index.made(ROUTES, snapshot(300, 3, {"m0": "v299"}).resources[ROUTES]["m0"].version)
    assert not index.made(ROUTES, snapshot(2, 3, {"m0": "v1"}).resources[ROUTES]["m0"].version)


def test_entries_are_read_once_as_long_as_none_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MORE_RESOURCES", 1)
    index, loaded = VersionIndex(), VersionIndex()
    for n in range(30):
        index.add(snapshot(n + 1, 3, {"m0": f"v{n}"}), float(n))
    decoded: list[str] = []
    changed = IndexedVersion.changed

    def count(entry: IndexedVersion) -> list[str]:
        decoded.append(entry.version)
        return changed(entry)

    monkeypatch.setattr(IndexedVersion, "changed", count)
    loaded.load(e for e in index.entries().values() if e is not None)
    assert len(decoded) == len(index.entries())
    assert loaded.made(ROUTES, snapshot(2, 3, {"m0": "v1"}).resources[ROUTES]["m0"].version)


def test_the_changes_of_another_copy_are_changes_of_this_one() -> None:
    index, copy = VersionIndex(), VersionIndex()
    copy.add(snapshot(1), 1.0)
    changes = copy.take_changes()
    index.apply(changes)
    index.apply(changes)
    assert index.take_changes() == changes


def test_a_snapshot_is_known_from_the_moment_when_it_is_announced() -> None:
    index, first = VersionIndex(), snapshot(1)
    index.announced.add(first)
    assert index.find(ROUTES, first.versions[ROUTES]) is first.resources[ROUTES]
    resource = first.resources[ROUTES]["m1"]
    for _ in range(2):
        assert index.made(ROUTES, resource.version)
        assert index.has(ROUTES, resource.version)
        assert index.has(ROUTES, first.versions[ROUTES])
        assert not index.has(CLUSTER, first.versions[ROUTES])
        index.add(first, 1.0)
    assert index.announced.find(ROUTES, first.versions[ROUTES]) is None
    assert same(index.find(ROUTES, first.versions[ROUTES]), first.resources[ROUTES])


def test_a_version_whose_base_was_lost_is_unknown_and_never_a_base() -> None:
    """The server was killed before it saved the base of a version that a stream mixed."""
    index = VersionIndex()
    first, second = snapshot(1, 40), snapshot(2, 40, {"m1": "green"})
    version, routes = second.versions[ROUTES], second.resources[ROUTES]
    index.add_mixed(ROUTES, version, routes, first.versions[ROUTES], first.resources[ROUTES])
    assert index.find(ROUTES, version) is None
    # The same content is served now, and then the lost version.
    index.add(second, 1.0)
    index.add(first, 2.0)
    assert knows(index, first)
    assert knows(index, second)
