"""The script of a version that changes the path or the body of its requests."""

from __future__ import annotations

from controlplane.compiler.upstream_lua import script
from controlplane.domain import PathRewrite, RequestHeaders, Version


def test_a_version_that_rewrites_nothing_has_no_script() -> None:
    assert script(Version("blue", host="a.b", request_headers=RequestHeaders({"x-a": "1"}))) == ""


def test_texts_in_a_script_can_not_end_their_quotes() -> None:
    code = script(Version("blue", rewrite=PathRewrite('/a"b', "/c]]\\n~d")))
    assert code.startswith('local PREFIX, REPLACEMENT, FOLLOWING = "/a\\034b", "/c\\093\\093\\092n~d", "/:"\n')


def test_a_script_has_only_the_parts_that_its_version_needs() -> None:
    path = script(Version("blue", rewrite=PathRewrite("/a", "/b")))
    body = script(Version("blue", upstream_model="llama-3.3"))
    both = script(Version("blue", rewrite=PathRewrite("/a", "/b"), upstream_model="llama-3.3"))
    assert ("remainder" in path, "model_values" in path) == (True, False)
    assert ("remainder" in body, "model_values" in body) == (False, True)
    # After `body()` the headers can't be changed.
    assert both.index("headers:replace") < both.index("handle:body()")
    assert all(code.endswith("end\n") for code in (path, body, both))


def test_the_name_of_the_model_is_written_as_json_as_text_and_for_a_query() -> None:
    code = script(Version("blue", upstream_model="é/1"))
    assert 'IN_JSON, IN_FORM, IN_QUERY = "\\034\\092u00e9/1\\034", "\\195\\169/1", "\\037C3\\037A9\\0372F1"\n' in code
