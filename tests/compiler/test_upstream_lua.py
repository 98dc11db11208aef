"""The script of a version that changes the path or the body of its requests."""

from __future__ import annotations

from controlplane.compiler.upstream_lua import script
from controlplane.domain import PathRewrite, RequestHeaders, Version


def test_a_version_that_rewrites_nothing_has_no_script() -> None:
    assert script(Version("blue", host="a.b", request_headers=RequestHeaders({"x-a": "1"}))) == ""


def test_texts_in_a_script_can_not_end_their_quotes() -> None:
    code = script(Version("blue", rewrite=PathRewrite('/a"b', "/c]]\\n~d")))
    assert code.startswith('local PREFIX, REPLACEMENT, FOLLOWING = "/a\\034b", "/c\\093\\093\\092n~d", "/:"\n')
