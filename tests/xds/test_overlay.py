"""Overlays and names refer to shared mappings, and keep the differences only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.envoy_types import CLUSTER, ENDPOINTS, ROUTES
from controlplane.snapshot import DiffCache, Resource
from controlplane.xds.overlay import Names, Overlay, ReferenceCache, same

resources = st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=1), max_size=6).map(
    lambda bodies: {n: Resource.of(CLUSTER, n, b) for n, b in bodies.items()}
)
names = st.sets(st.sampled_from("abcdefgh"))


def content(overlay: Overlay) -> dict[str, str]:
    return {n: r.version for n in "abcdef" if (r := overlay.get(n)) is not None}


def versions(resources: dict[str, Resource]) -> dict[str, str]:
    return {n: r.version for n, r in resources.items()}


@given(resources, resources, resources)
def test_an_overlay_keeps_its_content_with_every_base(
    base: dict[str, Resource], over: dict[str, Resource], other: dict[str, Resource]
) -> None:
    overlay = Overlay(DiffCache())
    overlay.replace(base)
    for name in "abc":
        overlay.set(name, over.get(name))
    expected = versions({n: r for n, r in base.items() if n not in "abc"} | {n: r for n, r in over.items() if n in "abc"})
    assert content(overlay) == expected
    differing = {n for n in "abcdef" if not same(overlay.get(n), other.get(n))}
    assert differing <= set(overlay.differing(other))
    fork = overlay.fork()
    overlay.rebase(other)
    assert overlay.base is other
    assert overlay.over.keys() == differing
    assert content(overlay) == content(fork) == expected


@given(resources, resources, names, names)
def test_names_stay_the_same_with_every_base(
    first: dict[str, Resource], other: dict[str, Resource], more: set[str], less: set[str]
) -> None:
    subscribed = Names(DiffCache())
    subscribed.rebase(first)
    expected = set(subscribed)
    for name in more:
        subscribed.add(name)
    for name in less:
        subscribed.discard(name)
    expected = (expected | more) - less
    assert set(subscribed) == expected
    assert len(subscribed) == len(expected)
    subscribed.rebase(other)
    assert set(subscribed) == set(subscribed.fork()) == expected
    assert {n for n in "abcdefgh" if n in subscribed} == expected
    assert subscribed.covers(frozenset(more), first) is (more & first.keys() <= expected)
    assert not subscribed.all_of(other) or other.keys() <= expected
    assert not subscribed.same(expected) or set(subscribed) == expected


def test_an_overlay_with_many_differences_has_no_fingerprint() -> None:
    overlay = Overlay(DiffCache())
    fingerprints = []
    for number in range(257):
        fingerprints.append(overlay.fingerprint())
        overlay.set(f"{number}", Resource.of(CLUSTER, f"{number}", b"x"))
    assert None not in fingerprints
    assert overlay.fingerprint() is None


def test_references_are_computed_once_for_each_mapping() -> None:
    cache = ReferenceCache()
    mapping = {
        "a": Resource.of(ROUTES, "a", b"a", {(CLUSTER, "blue")}),
        "b": Resource.of(ROUTES, "b", b"b", {(CLUSTER, "green"), (ENDPOINTS, "green")}),
    }
    assert cache.references(mapping) == {CLUSTER: frozenset({"blue", "green"}), ENDPOINTS: frozenset({"green"})}
    assert cache.references(mapping) is cache.references(mapping)
    assert cache.references({}) == {}
