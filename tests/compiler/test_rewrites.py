"""Rewrites: one regular expression has all the rules."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

import pytest

from controlplane.compiler.rewrites import regex_rewrite
from controlplane.domain import PathRewrite
from tests.compiler.rewrite_table import TABLE


def decoded(path: str) -> str:
    """Return a path as Envoy normalises it: what needs no encoding is decoded."""
    return re.sub("%[0-9A-Fa-f]{2}", lambda m: unquote(m[0]) if quote(unquote(m[0]), "") == unquote(m[0]) else m[0], path)


@pytest.mark.parametrize("rewrite", TABLE)
def test_the_table(rewrite: tuple[str, str]) -> None:
    message = regex_rewrite(PathRewrite(*rewrite))
    for path, expected in TABLE[rewrite].items():
        before, question, query = path.partition("?")
        # RE2 and Python have the same syntax for groups and for escaped backslashes in a substitution.
        after = re.sub(message.pattern.regex, message.substitution, decoded(before))
        assert after + question + query == expected, path


def test_the_prefix_is_found_only_at_the_start() -> None:
    assert regex_rewrite(PathRewrite("/foo", "/xyz")).pattern.regex.startswith("^/foo")
