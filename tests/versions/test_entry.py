"""One version, encoded."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.envoy_types import CLUSTER, ENDPOINTS, ROUTES
from controlplane.snapshot import Resource
from controlplane.versions.entry import IndexedVersion, encode, run


def encoded(
    type_url: str, version: str, base: str, time: float, has: Iterable[Resource], lacks: Iterable[str] = ()
) -> IndexedVersion:
    return IndexedVersion(type_url, version, base, time, run(encode(has, lacks)))


def route(name: str, content: str = "", clusters: tuple[str, ...] = ()) -> Resource:
    return Resource.of(ROUTES, name, f"{name} {content}".encode(), [(CLUSTER, c) for c in clusters])


@pytest.mark.parametrize("count", [1, 500])
def test_a_whole_version_has_names_versions_and_references_and_no_bodies(count: int) -> None:
    routes = [route(f"m{i}", clusters=(f"m{i}/blue", f"m{i}/green")) for i in range(count)]
    entry = encoded(ROUTES, "v", "", 1.5, routes)
    assert (entry.key, entry.base, entry.time) == ((ROUTES, "v"), "", 1.5)
    found = entry.resources()
    assert list(found) == [r.name for r in routes]
    for r in routes:
        assert found[r.name] == Resource(ROUTES, r.name, r.version, b"", r.refs)
    assert len(entry.content) < 100 + 50 * count


def test_a_relative_version_needs_its_base() -> None:
    a, b, c = route("a"), route("b"), route("c")
    base = encoded(ROUTES, "v1", "", 0.0, [a, b]).resources()
    changed = route("b", "new", ("b/green",))
    entry = encoded(ROUTES, "v2", "v1", 0.0, [changed, c], ["a"])
    assert {n: r.version for n, r in entry.resources(base).items()} == {"b": changed.version, "c": c.version}
    assert entry.changed() == [changed.version, c.version]
    assert base.keys() == {"a", "b"}


def test_references_of_a_type_that_this_version_does_not_know_are_left_out() -> None:
    entry = encoded(CLUSTER, "v", "", 0.0, [Resource.of(CLUSTER, "c", b"c", [(ENDPOINTS, "c")])])
    content = zlib.compress(zlib.decompress(entry.content).replace(b'"eds"', b'"new"'))
    later = IndexedVersion(CLUSTER, "v", "", 0.0, content)
    assert later.resources()["c"].refs == frozenset()


NAMES = st.text(st.sampled_from('a/[]{}",:\\ü'), max_size=12)


@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=3), max_size=5), st.lists(NAMES, max_size=3))
def test_versions_of_resources_are_found_in_the_text_whatever_the_names(has: dict[str, list[str]], lacks: list[str]) -> None:
    routes = [route(name, clusters=tuple(clusters)) for name, clusters in has.items()]
    assert encoded(ROUTES, "v", "", 0.0, routes, lacks).changed() == [r.version for r in routes]
