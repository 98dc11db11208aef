"""Node matchers of CSDS requests."""

from __future__ import annotations

import time
from typing import Any

import pytest
from envoy.type.matcher.v3 import node_pb2
from google.protobuf.json_format import ParseDict

from controlplane.api.matchers import node_test
from controlplane.errors import Code, Error

NODE = "edge-eu-17"
METADATA = {
    "tier": "canary",
    "weight": 2.0,
    "on": True,
    "off": None,
    "team": {"name": "vision", "ids": ["a", "b"]},
}


def matches(*matchers: dict[str, Any], node: str = NODE) -> bool:
    return node_test([ParseDict(m, node_pb2.NodeMatcher()) for m in matchers])(node, METADATA)


def by_id(**string: Any) -> dict[str, Any]:
    return {"node_id": string}


def by_metadata(value: dict[str, Any], *path: str) -> dict[str, Any]:
    return {"node_metadatas": [{"path": [{"key": p} for p in path], "value": value}]}


@pytest.mark.parametrize(
    ("matcher", "expected"),
    [
        (by_id(exact="edge-eu-17"), True),
        (by_id(exact="edge-eu-1"), False),
        (by_id(exact="EDGE-EU-17"), False),
        (by_id(exact="EDGE-EU-17", ignore_case=True), True),
        (by_id(prefix="edge-"), True),
        (by_id(prefix="eu"), False),
        (by_id(suffix="-17"), True),
        (by_id(suffix="edge"), False),
        (by_id(contains="-eu-"), True),
        (by_id(contains="-us-"), False),
        (by_id(safe_regex={"regex": r"edge-(?:eu|us)-\d+"}), True),
        (by_id(safe_regex={"regex": r"edge"}), False),
        (by_metadata({"string_match": {"exact": "canary"}}, "tier"), True),
        (by_metadata({"string_match": {"exact": "vision"}}, "team", "name"), True),
        (by_metadata({"string_match": {"exact": "vision"}}, "team", "none"), False),
        (by_metadata({"string_match": {"exact": "vision"}}, "tier", "name"), False),
        (by_metadata({"string_match": {"prefix": "2"}}, "weight"), False),
        (by_metadata({"double_match": {"exact": 2}}, "weight"), True),
        (by_metadata({"double_match": {"range": {"start": 1, "end": 2}}}, "weight"), False),
        (by_metadata({"double_match": {"range": {"start": 2, "end": 3}}}, "weight"), True),
        (by_metadata({"double_match": {"exact": 1}}, "on"), False),
        (by_metadata({"bool_match": True}, "on"), True),
        (by_metadata({"bool_match": False}, "off"), False),
        (by_metadata({"null_match": {}}, "off"), True),
        (by_metadata({"null_match": {}}, "none"), False),
        (by_metadata({"present_match": True}, "off"), True),
        (by_metadata({"present_match": True}, "none"), False),
        (by_metadata({"present_match": False}, "none"), False),
        (by_metadata({"list_match": {"one_of": {"string_match": {"exact": "b"}}}}, "team", "ids"), True),
        (by_metadata({"list_match": {"one_of": {"string_match": {"exact": "c"}}}}, "team", "ids"), False),
        (by_metadata({"or_match": {"value_matchers": [{"bool_match": True}, {"null_match": {}}]}}, "off"), True),
    ],
)
def test_a_matcher(matcher: dict[str, Any], expected: bool) -> None:
    assert matches(matcher) is expected


def test_all_parts_of_a_matcher_must_match_and_one_of_several_matchers() -> None:
    assert matches()
    both = {**by_id(prefix="edge-"), **by_metadata({"bool_match": False}, "on")}
    assert not matches(both)
    assert matches(both, by_id(suffix="7"))


@pytest.mark.parametrize(
    ("matcher", "field", "message"),
    [
        ({}, "node_id", "neither"),
        (by_id(), "node_id", "is empty"),
        (by_id(prefix=""), "node_id.prefix", "is empty"),
        (by_id(custom={"name": "x"}), "node_id", "custom is not supported"),
        (by_id(safe_regex={"regex": "("}), "node_id.safe_regex.regex", "is not a regular expression"),
        (by_id(safe_regex={"regex": "x" * 300}), "node_id.safe_regex.regex", "256"),
        *(
            (by_id(safe_regex={"regex": r}), "node_id.safe_regex.regex", "is not a regular expression of RE2")
            for r in (r"(a)\1", "(?=a)a", "(?:(?:a{100}){100}){100}")
        ),
        (by_metadata({"string_match": {"exact": "x"}}), "node_metadatas[0].path", "is empty"),
        (by_metadata({}, "tier"), "node_metadatas[0].value", "is empty"),
        (by_metadata({"double_match": {}}, "tier"), "node_metadatas[0].value.double_match", "is empty"),
        (
            by_metadata({"or_match": {"value_matchers": [{"null_match": {}}, {}]}}, "tier"),
            "node_metadatas[0].value.or_match.value_matchers[1]",
            "is empty",
        ),
    ],
)
def test_an_invalid_matcher_is_refused_at_its_field(matcher: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(Error, match=message) as caught:
        matches(by_id(exact="good"), matcher)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert [v.field for v in caught.value.violations] == [f"node_matchers[1].{field}"]


def test_the_number_of_matchers_is_limited() -> None:
    assert matches(*[by_id(exact="other")] * 999, by_id(exact=NODE))
    with pytest.raises(Error, match="1,001"):
        matches(*[by_id(exact=NODE)] * 1_001)


def test_a_regular_expression_is_not_tried_on_a_very_long_id() -> None:
    assert matches(by_id(safe_regex={"regex": "a*"}), node="a" * 512)
    assert not matches(by_id(safe_regex={"regex": "a*"}), node="a" * 513)


@pytest.mark.parametrize("regex", ["a*a*a*b", "(a+)+b", "(a|aa)+b", "(?:a?){250}b", ".*.*.*.*.*.*=.*"])
def test_a_regular_expression_takes_linear_time(regex: str) -> None:
    began = time.process_time()
    assert not any(matches(by_id(safe_regex={"regex": regex}), node="a" * 512) for _ in range(20))
    assert time.process_time() - began < 1
