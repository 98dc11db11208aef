"""Keys and prefixes that no request can match. `tests/envoy/test_keys.py` has the requests."""

from __future__ import annotations

import pytest

from controlplane.domain import BodyRouting, HeaderRouting, HostRouting, PathRouting, Routing
from controlplane.domain.matching import key_problem, prefix_problem

PATH, HEADER, HOST, BODY = PathRouting(), HeaderRouting("x-model"), HostRouting(), BodyRouting()


@pytest.mark.parametrize(
    ("key", "matching"),
    [
        ("iris", (PATH, HEADER, HOST, BODY)),
        ("Iris_2.v~1", (PATH, HEADER, BODY)),
        ("iris.example.com", (PATH, HEADER, HOST, BODY)),
        ("Iris.Example.com", (PATH, HEADER, HOST, BODY)),
        ("10.0.0.1", (PATH, HEADER, HOST, BODY)),
        ("iris.example.com.", (PATH, HEADER, BODY)),
        ("..", (HEADER, BODY)),
        (".", (HEADER, BODY)),
        ("...", (PATH, HEADER, BODY)),
        ("iris..example", (PATH, HEADER, BODY)),
        ("-iris.example", (PATH, HEADER, BODY)),
        ("iris.example:80", (PATH, HEADER, BODY)),
        ("llama3.1:8b", (PATH, HEADER, BODY)),
        ("meta-llama/Llama-3.1-8B-Instruct", (HEADER, BODY)),
    ],
)
def test_a_key_can_match_at_these_gateways(key: str, matching: tuple[Routing, ...]) -> None:
    assert tuple(routing for routing in (PATH, HEADER, HOST, BODY) if not key_problem(routing, key)) == matching


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("/v2/models/iris", ""),
        ("/", ""),
        ("/a%2Fb:c", ""),
        ("/a/.../b", ""),
        ("/a/../b", "resolves"),
        ("/a/.", "resolves"),
        ("/a/%2E%2e", "resolves"),
        ("/%69ris", "write '/iris'"),
        ("/a%7eb", "write '/a~b'"),
        ("/a{b}", "changes '{' to '%7B'"),
        ("/a|b", "changes '|' to '%7C'"),
        ("/a\\b", "changes '\\' to '/'"),
    ],
)
def test_a_prefix_can_match_or_the_problem_says_why_not(prefix: str, words: str) -> None:
    assert (words in prefix_problem(prefix)) if words else prefix_problem(prefix) == ""
