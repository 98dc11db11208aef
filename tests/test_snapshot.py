"""Snapshots: versions depend on the content only, and the cache of diffs is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.envoy_types import CLUSTER, ORDER, ROUTES
from controlplane.snapshot import Audience, DiffCache, Resource, Snapshot, diff, resource_hash, type_version

resources = st.dictionaries(st.text("abcd", min_size=1, max_size=3), st.binary(max_size=4), max_size=8).map(
    lambda bodies: {n: Resource.of(CLUSTER, n, b) for n, b in bodies.items()}
)


@given(resources, resources)
def test_a_diff_leads_from_the_old_mapping_to_the_new_one(old: dict[str, Resource], new: dict[str, Resource]) -> None:
    d = diff(old, new)
    patched = {n: r for n, r in old.items() if n not in d.removed} | {r.name: r for r in d.changed}
    assert patched == new
    assert all(old.get(r.name) != r for r in d.changed)
    assert bool(d) is (old != new)


@given(resources, st.randoms())
def test_a_types_version_depends_on_its_content_and_not_on_the_order(rs: dict[str, Resource], random: object) -> None:
    values = list(rs.values())
    assert type_version(values) == type_version(reversed(values))
    total = sum(resource_hash(r) for r in values)
    assert int(type_version(values), 16) == total % 2**128


def test_a_version_depends_only_on_name_and_body() -> None:
    a = Resource.of(CLUSTER, "a", b"1")
    assert a.version == Resource.of(CLUSTER, "b", b"1", {(ROUTES, "x")}).version
    assert type_version([a]) != type_version([Resource.of(CLUSTER, "b", b"1")])
    assert a.version != Resource.of(CLUSTER, "a", b"2").version
    assert a.version == "f6fc42039fba3776", "if versions changed with a release, the whole fleet would get everything again"


def test_a_snapshot_has_every_type_and_refuses_a_name_twice() -> None:
    assert set(Snapshot.of(1, Audience(), []).resources) == set(ORDER)
    with pytest.raises(ValueError, match="Cluster are named a"):
        Snapshot.of(1, Audience(), [Resource.of(CLUSTER, "a", b"1"), Resource.of(CLUSTER, "a", b"2")])


def routes(count: int, first: int = 0) -> dict[str, Resource]:
    """Return `count` routes. The version of the first route is `first`."""
    return {f"{n}": Resource(ROUTES, f"{n}", f"{0 if n else first}", b"") for n in range(count)}


def test_a_diff_is_computed_once_for_each_pair() -> None:
    cache, old, new = DiffCache(), routes(3), routes(3, first=1)
    assert cache.diff(old, new).names == ("0",)
    assert cache.diff(old, new) is cache.diff(old, new)
    assert not cache.diff(old, old)
    assert cache.diff({}, new).names == ("0", "1", "2")
    assert cache.diff(new, {}).names == ("0", "1", "2")


@pytest.mark.parametrize(("count", "bound"), [(3, 256), (1_000, 250), (100_000, 4)])
def test_a_cache_is_bounded_in_values_and_in_names(count: int, bound: int) -> None:
    cache, original = DiffCache(), routes(count)
    old = original
    for _ in range(300 if count < 10_000 else 10):
        new = dict(original)  # a new object each time, as in a new revision
        assert cache.diff(old, new).names == ()
        old = new
    assert bound - 1 <= len(cache._entries) <= bound
    assert cache._names == sum(len(source) for _, sources in cache._entries.values() for source in sources)
    assert cache._names <= cache.MAX_NAMES or len(cache._entries) <= cache.MIN_VALUES
