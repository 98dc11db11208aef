"""Patches as values: valid JSON objects with a target that fits their object."""

from __future__ import annotations

import pytest

from controlplane.domain import Endpoint, Gateway, Model, Patch, PatchTarget, Version
from controlplane.errors import Error

ROUTE = Patch("a", PatchTarget.ROUTE, '{"name": "x"}')


def test_equal_objects_are_equal_patches() -> None:
    one = Patch("a", PatchTarget.CLUSTER, '{"b": 1.0, "a": 2.5}')
    assert one == Patch("a", PatchTarget.CLUSTER, '{"a":2.5,"b":1}')
    assert one.content == '{"a":2.5,"b":1}'
    assert one.form == {"a": 2.5, "b": 1}


@pytest.mark.parametrize("content", ["", "[]", "1", "{}", "{", '{"a": NaN}', '{"a": Infinity}', "[" * 100_000])
def test_what_is_no_object_is_refused(content: str) -> None:
    with pytest.raises(Error, match="route: "):
        Patch("a", PatchTarget.ROUTE, content)


def test_a_large_content_is_refused() -> None:
    with pytest.raises(Error, match="at most 65,536"):
        Patch("a", PatchTarget.ROUTE, f'{{"a": "{"x" * (64 << 10)}"}}')


def test_only_a_filter_has_a_place_and_only_one() -> None:
    with pytest.raises(Error, match="only an HTTP filter has one"):
        Patch("a", PatchTarget.ROUTE, '{"name": "x"}', before="x")
    with pytest.raises(Error, match="choose one of them"):
        Patch("a", PatchTarget.HTTP_FILTER, '{"name": "x"}', before="x", after="y")


def test_an_object_takes_only_its_own_targets() -> None:
    version = Version("v1", (Endpoint("10.0.0.1", 80),))
    with pytest.raises(Error, match=r"patches\[0\].route: is not a target of a patch of this object: cluster"):
        Version("v1", patches=(ROUTE,))
    with pytest.raises(Error, match=r"patches\[0\].route"):
        Gateway("edge", 80, patches=(ROUTE,))
    with pytest.raises(Error, match=r"patches\[0\].cluster"):
        Model("iris", ("edge",), (version,), {"v1": 10_000}, patches=(Patch("a", PatchTarget.CLUSTER, '{"name": "x"}'),))


def test_names_are_distinct() -> None:
    version = Version("v1", (Endpoint("10.0.0.1", 80),))
    with pytest.raises(Error, match="patches"):
        Model("iris", ("edge",), (version,), {"v1": 10_000}, patches=(ROUTE, ROUTE))


def test_a_gateway_names_the_secrets_of_its_patches_once() -> None:
    gateway = Gateway("edge", 80, patch_secrets=("a", "b"))
    assert [(r.field, r.label) for r in gateway.references] == [("patch_secrets[0]", "a"), ("patch_secrets[1]", "b")]
    with pytest.raises(Error, match="patch_secrets"):
        Gateway("edge", 80, patch_secrets=("a", "a"))
