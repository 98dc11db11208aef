"""Envoy's node matchers: which nodes a status request is about.

A NodeMatcher matches when its id matcher and all of its metadata matchers do; of several NodeMatchers one is enough, and none
at all means every node. A metadata path that leads nowhere is matched by nothing.

Regular expressions are Envoy's RE2, which takes linear time; Python's don't. So only those are taken that can't take long:
without repeated groups, with three groups and repeats at most, and of texts up to 512 characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from controlplane.errors import Error, invalid, within

Test = Callable[[object], bool]
# Whether a node of this id and metadata is meant.
NodeTest = Callable[[str, Mapping[str, object]], bool]

_NOWHERE = object()
MOST_MATCHERS = 1_000
_MOST_CHOICES = 3
_MOST_PATTERN = 256
_MOST_TEXT = 512
# A group that is repeated; a group of another kind than `(…)` and `(?:…)`; a reference to a group.
_TOO_MUCH = re.compile(r"\)[*+?{]|\(\?(?!:)|\\[1-9]")


def node_test(matchers: Sequence[Any]) -> NodeTest:
    """A test of envoy.type.matcher.v3.NodeMatchers. Errors: INVALID_ARGUMENT for what is wrong, or not supported."""
    tests: list[NodeTest] = []
    if len(matchers) > MOST_MATCHERS:
        raise invalid("node_matchers", f"there are {len(matchers):,}; {MOST_MATCHERS:,} are the most")
    for i, matcher in enumerate(matchers):
        with within(f"node_matchers[{i}]"):
            tests.append(_node(matcher))
    return (lambda node_id, metadata: any(t(node_id, metadata) for t in tests)) if tests else (lambda node_id, metadata: True)


def _node(matcher: Any) -> NodeTest:
    by_id = _string(matcher.node_id, "node_id") if matcher.HasField("node_id") else None
    by_metadata: list[tuple[list[str], Test]] = []
    for i, struct in enumerate(matcher.node_metadatas):
        with within(f"node_metadatas[{i}]"):
            path = [segment.key for segment in struct.path]
            if not path:
                raise invalid("path", "has no segments; the first is a key at the top of the metadata")
            by_metadata.append((path, _value(struct.value, "value")))
    if by_id is None and not by_metadata:
        raise invalid("node_id", "neither an id nor metadata is matched; leave the whole matcher out for every node")

    def matches(node_id: str, metadata: Mapping[str, object]) -> bool:
        return (by_id is None or by_id(node_id)) and all(test(_at(metadata, path)) for path, test in by_metadata)

    return matches


def _at(value: object, path: list[str]) -> object:
    for key in path:
        value = value.get(key, _NOWHERE) if isinstance(value, Mapping) else _NOWHERE
    return value


def _value(matcher: Any, field: str) -> Test:
    match matcher.WhichOneof("match_pattern"):
        case "null_match":
            return lambda value: value is None
        case "double_match":
            return _double(matcher.double_match, f"{field}.double_match")
        case "string_match":
            return _string(matcher.string_match, f"{field}.string_match")
        case "bool_match":
            wanted = matcher.bool_match
            return lambda value: value is wanted
        case "present_match":
            present = matcher.present_match
            return lambda value: present and value is not _NOWHERE
        case "list_match":
            one = _value(matcher.list_match.one_of, f"{field}.list_match.one_of")
            return lambda value: isinstance(value, list) and any(map(one, value))
        case "or_match":
            tests = [_value(m, f"{field}.or_match.value_matchers[{i}]") for i, m in enumerate(matcher.or_match.value_matchers)]
            return lambda value: any(test(value) for test in tests)
        case kind:
            raise _unsupported(field, kind)


def _double(matcher: Any, field: str) -> Test:
    match matcher.WhichOneof("match_pattern"):
        case "exact":
            exact = matcher.exact
            return lambda value: _is_number(value) and value == exact
        case "range":
            start, end = matcher.range.start, matcher.range.end
            return lambda value: isinstance(value, float) and start <= value < end
        case kind:
            raise _unsupported(field, kind)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _string(matcher: Any, field: str) -> Test:
    kind = matcher.WhichOneof("match_pattern")
    if kind == "safe_regex":
        return _regex(matcher.safe_regex.regex, f"{field}.safe_regex.regex")
    if kind not in ("exact", "prefix", "suffix", "contains"):
        raise _unsupported(field, kind)
    wanted: str = getattr(matcher, kind)
    if kind != "exact" and not wanted:
        raise invalid(f"{field}.{kind}", "is empty")
    fold: Callable[[str], str] = str.lower if matcher.ignore_case else str
    wanted = fold(wanted)
    tests: Mapping[str, Callable[[str], bool]] = {
        "exact": lambda text: text == wanted,
        "prefix": lambda text: text.startswith(wanted),
        "suffix": lambda text: text.endswith(wanted),
        "contains": lambda text: wanted in text,
    }
    test = tests[kind]
    return lambda value: isinstance(value, str) and test(fold(value))


def _regex(pattern: str, field: str) -> Test:
    if len(pattern) > _MOST_PATTERN:
        raise invalid(field, f"has {len(pattern)} characters; {_MOST_PATTERN} are the most")
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise invalid(field, f"can't be read: {error}") from None
    if _TOO_MUCH.search(pattern) or sum(map(pattern.replace("(?:", "(").count, "*+?{(")) > _MOST_CHOICES:
        raise invalid(
            field,
            f"not supported: repeated groups, groups with '(?' other than '(?:', references, more than {_MOST_CHOICES} groups "
            "and repeats; say it with several matchers, or with prefix, suffix or contains",
        )
    return lambda value: isinstance(value, str) and len(value) <= _MOST_TEXT and compiled.fullmatch(value) is not None


def _unsupported(field: str, kind: str | None) -> Error:
    return invalid(field, f"{kind} is not supported" if kind else "is empty: it says nothing to match")
