"""Patches in diffs: one line for each value that changes."""

from __future__ import annotations

from dataclasses import replace

from controlplane.domain import Endpoint, Gateway, Model, Patch, PatchTarget, Version
from controlplane.domain.describe import lines

FILTER = Patch("authz", PatchTarget.HTTP_FILTER, '{"name": "x", "typed_config": {"a": [1, {}]}}', before="router")


def test_a_new_patch_has_a_line_for_each_value() -> None:
    assert lines(None, Gateway("edge", 80, patches=(FILTER,))) == [
        "port: 80",
        "patches: authz",
        "patches.authz: http_filter before router",
        'patches.authz.name: "x"',
        "patches.authz.typed_config.a[0]: 1",
        "patches.authz.typed_config.a[1]: {}",
    ]


def test_a_changed_value_has_one_line() -> None:
    changed = replace(FILTER, content=FILTER.content.replace("1", "2"))
    before, after = (Gateway("edge", 80, patches=(p,)) for p in (FILTER, changed))
    assert lines(before, after) == ["patches.authz.typed_config.a[0]: 1 -> 2"]


def test_a_removed_patch_has_one_line_without_its_values() -> None:
    other = Patch("other", PatchTarget.LISTENER, '{"a": 1}')
    before = Gateway("edge", 80, patches=(FILTER, other))
    assert lines(before, replace(before, patches=(other,))) == [
        "patches: authz, other -> other",
        "patches.authz: http_filter before router -> none",
    ]
    assert lines(before, replace(before, patches=()))[0] == "patches: authz, other -> none"


def test_patches_of_versions_have_the_version_in_their_path() -> None:
    patch = Patch("ttl", PatchTarget.CLUSTER, '{"dns_refresh_rate": "3s"}')
    version = Version("v1", (Endpoint("10.0.0.1", 80),))
    before = Model("iris", ("edge",), (version,), {"v1": 10_000})
    after = replace(before, versions=(replace(version, patches=(patch,)),))
    assert lines(before, after)[1:] == [
        "versions.v1.patches.ttl: none -> cluster",
        'versions.v1.patches.ttl.dns_refresh_rate: none -> "3s"',
    ]
