"""Snapshots: versions are content, whatever the order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.envoy_types import CLUSTER, ORDER, ROUTES
from controlplane.snapshot import Audience, Resource, Snapshot, diff, resource_hash, type_version

resources = st.dictionaries(st.text("abcd", min_size=1, max_size=3), st.binary(max_size=4), max_size=8).map(
    lambda bodies: {n: Resource.of(CLUSTER, n, b) for n, b in bodies.items()}
)


@given(resources, resources)
def test_a_diff_makes_one_of_the_other(old: dict[str, Resource], new: dict[str, Resource]) -> None:
    d = diff(old, new)
    made = {n: r for n, r in old.items() if n not in d.removed} | {r.name: r for r in d.changed}
    assert made == new
    assert all(old.get(r.name) != r for r in d.changed)
    assert bool(d) is (old != new)


@given(resources, st.randoms())
def test_a_types_version_is_its_content_in_any_order(rs: dict[str, Resource], random: object) -> None:
    values = list(rs.values())
    assert type_version(values) == type_version(reversed(values))
    total = sum(resource_hash(r) for r in values)
    assert int(type_version(values), 16) == total % 2**128


def test_a_version_changes_with_name_and_body_only() -> None:
    a = Resource.of(CLUSTER, "a", b"1")
    assert a.version == Resource.of(CLUSTER, "b", b"1", {(ROUTES, "x")}).version
    assert type_version([a]) != type_version([Resource.of(CLUSTER, "b", b"1")])
    assert a.version != Resource.of(CLUSTER, "a", b"2").version
    assert a.version == "f6fc42039fba3776", "a version that differs between releases sends the whole fleet everything again"


def test_a_snapshot_has_every_type_and_no_name_twice() -> None:
    assert set(Snapshot.of(1, Audience(), []).resources) == set(ORDER)
    with pytest.raises(ValueError, match="Cluster are named a"):
        Snapshot.of(1, Audience(), [Resource.of(CLUSTER, "a", b"1"), Resource.of(CLUSTER, "a", b"2")])
