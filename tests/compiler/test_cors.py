"""CORS filters: the origins that match, and the headers that are set."""

from __future__ import annotations

import re
from typing import Any

import pytest

from controlplane.compiler.cors import cors_filters
from controlplane.compiler.decode import unpack
from controlplane.domain import Cors


def headers(cors: Cors, filter_name: str) -> dict[str, str]:
    """Return the response headers that a filter sets."""
    config: Any = unpack(dict(cors_filters(cors))[f"turnout.{filter_name}"].extension_config.typed_config)
    return {m.append.header.key: m.append.header.value for m in config.mutations.response_mutations}


def allows(origin: str, *allowed: str) -> bool:
    """Return True if the filter for allowed origins runs for a request with this origin."""
    matcher = dict(cors_filters(Cors(allowed)))["turnout.cors"].xds_matcher.matcher_list.matchers[0]
    regex = matcher.predicate.not_matcher.single_predicate.value_match.safe_regex.regex
    return re.fullmatch(regex, origin) is not None


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example.com", True),
        ("https://appxexample.com", False),
        ("https://app.example.com.evil", False),
        ("http://app.example.com", False),
        ("https://app.example.com:8443", False),
        ("https://a.lab.example:8443", True),
        ("https://a.b.lab.example:8443", True),
        ("https://lab.example:8443", False),
        ("https://evil.com/.lab.example:8443", False),
        ("", False),
    ],
)
def test_an_origin_matches_as_a_whole(origin: str, allowed: bool) -> None:
    assert allows(origin, "https://app.example.com", "https://*.lab.example:8443") is allowed
    assert allows(origin, "*")


def test_the_headers_are_those_of_the_policy() -> None:
    cors = Cors(
        ("https://a.example",), ("GET", "POST"), ("x-model",), ("grpc-status", "x-b"), allow_credentials=True, max_age=600.0
    )
    assert headers(cors, "cors") == {
        "access-control-allow-origin": "%REQ(origin)%",
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": "grpc-status,x-b",
        "vary": "origin",
    }
    assert headers(cors, "cors_preflight") == {
        "access-control-allow-methods": "GET,POST",
        "access-control-allow-headers": "x-model",
        "access-control-max-age": "600",
    }


def test_unset_lists_allow_what_the_browser_asks_for() -> None:
    assert headers(Cors(("*",)), "cors_preflight") == {
        "access-control-allow-methods": "%REQ(access-control-request-method)%",
        "access-control-allow-headers": "%REQ(access-control-request-headers)%",
    }
    assert headers(Cors(("*",)), "cors").keys() == {"access-control-allow-origin", "vary"}
