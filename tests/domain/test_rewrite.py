"""Rewrites of paths: valid by construction."""

from __future__ import annotations

import pytest

from controlplane.domain import PathRewrite
from controlplane.errors import Error


@pytest.mark.parametrize(("prefix", "replacement", "field"), [("v2", "/", "prefix"), ("/v2", "v3", "replacement")])
def test_both_parts_are_paths(prefix: str, replacement: str, field: str) -> None:
    with pytest.raises(Error) as caught:
        PathRewrite(prefix, replacement)
    assert [v.field for v in caught.value.violations] == [field]


def test_without_a_replacement_the_prefix_is_removed() -> None:
    assert PathRewrite("/v2").replacement == ""
