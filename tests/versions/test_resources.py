"""The versions of resources."""

from __future__ import annotations

import pytest

from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.snapshot import Resource
from controlplane.versions import resources as module
from controlplane.versions.entry import IndexedVersion, encode, run
from controlplane.versions.resources import ResourceVersions


def test_versions_belong_to_a_type() -> None:
    a, b = Resource.of(ROUTES, "a", b"a"), Resource.of(CLUSTER, "b", b"b")
    versions = ResourceVersions([IndexedVersion(ROUTES, "v", "", 0.0, run(encode([a])))])
    versions.add(CLUSTER, [b.version])
    assert (ROUTES, a.version) in versions
    assert (CLUSTER, b.version) in versions
    assert (CLUSTER, a.version) not in versions
    assert (ROUTES, "not hexadecimal") not in versions


def test_a_set_is_stale_after_many_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MORE_RESOURCES", 3)
    versions = ResourceVersions([IndexedVersion(ROUTES, "v", "", 0.0, run(encode([Resource.of(ROUTES, "a", b"a")])))])
    versions.add(ROUTES, ["1", "2", "3", "4", "4"])
    assert not versions.is_stale
    versions.add(ROUTES, ["5"])
    assert versions.is_stale
