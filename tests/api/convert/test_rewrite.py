"""Conversion of path rewrites."""

from __future__ import annotations

from controlplane.api.convert.rewrite import rewrite_from_proto, rewrite_to_proto
from controlplane.domain import PathRewrite


def test_a_rewrite_survives_both_conversions() -> None:
    rewrite = PathRewrite("/v2/models/iris", "/v2/models/iris/versions/2")
    assert rewrite_from_proto(rewrite_to_proto(rewrite)) == rewrite
