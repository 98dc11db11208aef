"""From rules in the protos to checks of a value."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import duration_pb2
from validate import validate_pb2

from controlplane.compiler.checks import checks_of, checks_of_kind

Rules = validate_pb2.FieldRules


def problems(rules: Any, value: Any) -> list[str]:
    return [text for check in checks_of(rules, None) if (text := check(value))]


@pytest.mark.parametrize(
    ("rules", "good", "bad", "problem"),
    [
        (Rules(uint32={"const": 7}), 7, 8, "must be exactly 7"),
        (Rules(uint32={"lt": 7}), 6, 7, "must be below 7"),
        (Rules(uint32={"lte": 7}), 7, 8, "must be at most 7"),
        (Rules(uint32={"gt": 7}), 8, 7, "must be above 7"),
        (Rules(double={"gte": 0.5}), 0.5, 0.4, "must be at least 0.5"),
        (Rules(uint32={"in": [1, 2]}), 1, 3, "must be one of [1, 2]"),
        (Rules(uint32={"not_in": [1, 2]}), 3, 1, "must not be one of [1, 2]"),
        (Rules(string={"len": 2}), "ab", "a", "its length must be 2"),
        (Rules(string={"min_len": 2}), "ab", "a", "its length must be at least 2"),
        (Rules(string={"max_bytes": 2}), "ab", "ää", "its length in bytes must be at most 2"),
        (Rules(string={"min_bytes": 2}), "ä", "a", "its length in bytes must be at least 2"),
        (Rules(string={"prefix": "/"}), "/a", "a", "must begin with '/'"),
        (Rules(string={"suffix": "/"}), "a/", "a", "must end with '/'"),
        (Rules(string={"contains": "/"}), "a/b", "a", "must contain '/'"),
        (Rules(string={"not_contains": "/"}), "a", "a/b", "must not contain '/'"),
        (Rules(string={"pattern": "^a+$"}), "aa", "b", "must match ^a+$"),
        (Rules(bytes={"max_len": 1}), b"a", b"ab", "its length must be at most 1"),
        (Rules(repeated={"min_items": 1}), [1], [], "its number of items must be at least 1"),
        (Rules(repeated={"unique": True}), [1, 2], [1, 1], "must not hold a value twice"),
        (Rules(map={"min_pairs": 1}), {"a": 1}, {}, "its number of entries must be at least 1"),
        (
            Rules(duration={"gte": duration_pb2.Duration(seconds=2)}),
            duration_pb2.Duration(seconds=2),
            duration_pb2.Duration(seconds=1, nanos=500_000_000),
            "must be at least 2 s",
        ),
        (Rules(string={"well_known_regex": 1, "strict": True}), ":path", "no spaces", "must be the name of an HTTP header"),
        (Rules(string={"well_known_regex": 1, "strict": False}), "no spaces", "a\nb", "must be the name of an HTTP header"),
        (Rules(string={"well_known_regex": 2, "strict": True}), "a b", "a\x01", "must be the value of an HTTP header"),
    ],
)
def test_a_rule_is_a_check(rules: Any, good: Any, bad: Any, problem: str) -> None:
    assert problems(rules, good) == []
    assert problems(rules, bad) == [problem]


def test_an_empty_value_can_be_exempt() -> None:
    assert problems(Rules(string={"min_len": 2, "ignore_empty": True}), "") == []
    assert problems(Rules(string={"min_len": 2, "ignore_empty": True}), "a") == ["its length must be at least 2"]


def test_no_rules_are_no_checks() -> None:
    assert checks_of(Rules(), None) == []


@pytest.mark.parametrize("rules", [Rules(string={"email": True}), Rules(string={"uri": True})])
def test_an_unknown_rule_is_an_error(rules: Any) -> None:
    with pytest.raises(NotImplementedError):
        checks_of(rules, None)
    with pytest.raises(KeyError):
        checks_of_kind("timestamp", validate_pb2.TimestampRules(lt_now=True), None)
