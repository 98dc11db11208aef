"""The versions of resources."""

from __future__ import annotations

import pytest

from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.snapshot import Resource
from controlplane.versions import resources as module
from controlplane.versions.entry import encoded
from controlplane.versions.resources import ResourceVersions


def test_versions_belong_to_a_type() -> None:
    a, b = Resource.of(ROUTES, "a", b"a"), Resource.of(CLUSTER, "b", b"b")
    versions = ResourceVersions([encoded(ROUTES, "v", "", 0.0, [a])])
    versions.add(encoded(CLUSTER, "v", "", 0.0, [b]))
    assert (ROUTES, a.version) in versions
    assert (CLUSTER, b.version) in versions
    assert (CLUSTER, a.version) not in versions
    assert (ROUTES, "not hexadecimal") not in versions


def test_a_set_is_stale_after_many_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MORE_RESOURCES", 3)
    versions = ResourceVersions([encoded(ROUTES, "v", "", 0.0, [Resource.of(ROUTES, "a", b"a")])])
    versions.add(encoded(ROUTES, "v", "", 0.0, [Resource.of(ROUTES, f"r{i}", b"%d" % i) for i in range(4)]))
    assert not versions.is_stale
    versions.add(encoded(ROUTES, "v", "", 0.0, [Resource.of(ROUTES, "a", b"new")]))
    assert versions.is_stale
