"""Envoy's node matchers, which select the nodes of a status request.

A NodeMatcher matches a node if its id matcher and all its metadata matchers match. One of several NodeMatchers is enough, and
a request without any asks for every node. A metadata path that does not exist matches nothing.

Regular expressions are those of RE2, as in Envoy, so they take linear time.
Ids and values of more than 512 characters never match.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from controlplane.errors import Error, invalid, within

Test = Callable[[object], bool]
# (node id, metadata) -> true if the node matches.
NodeTest = Callable[[str, Mapping[str, object]], bool]

_ABSENT = object()
MAX_MATCHERS = 1_000
_MAX_PATTERN = 256  # characters
_MAX_TEXT = 512  # characters
_MAX_MEMORY = 1 << 20  # bytes of a compiled expression and of its matching


def node_test(matchers: Sequence[Any]) -> NodeTest:
    """Return a test for envoy.type.matcher.v3.NodeMatchers. Errors: INVALID_ARGUMENT if one is invalid or not supported."""
    tests: list[NodeTest] = []
    if len(matchers) > MAX_MATCHERS:
        raise invalid("node_matchers", f"there are {len(matchers):,}; the maximum is {MAX_MATCHERS:,}")
    for i, matcher in enumerate(matchers):
        with within(f"node_matchers[{i}]"):
            tests.append(_node(matcher))
    return (lambda node_id, metadata: any(t(node_id, metadata) for t in tests)) if tests else (lambda node_id, metadata: True)


def _node(matcher: Any) -> NodeTest:
    """Return the test of one NodeMatcher."""
    by_id = _string(matcher.node_id, "node_id") if matcher.HasField("node_id") else None
    by_metadata: list[tuple[list[str], Test]] = []
    for i, struct in enumerate(matcher.node_metadatas):
        with within(f"node_metadatas[{i}]"):
            path = [segment.key for segment in struct.path]
            if not path:
                raise invalid("path", "is empty: give at least one segment, a top-level key of the metadata")
            by_metadata.append((path, _value(struct.value, "value")))
    if by_id is None and not by_metadata:
        raise invalid("node_id", "the matcher has neither an id nor metadata; to get every node, leave the matcher out")

    def matches(node_id: str, metadata: Mapping[str, object]) -> bool:
        return (by_id is None or by_id(node_id)) and all(test(_at(metadata, path)) for path, test in by_metadata)

    return matches


def _at(value: object, path: list[str]) -> object:
    """Return the value at a path of keys; `_ABSENT` if there is none."""
    for key in path:
        value = value.get(key, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return value


def _value(matcher: Any, field: str) -> Test:
    """Return the test of a ValueMatcher."""
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
            return lambda value: present and value is not _ABSENT
        case "list_match":
            one = _value(matcher.list_match.one_of, f"{field}.list_match.one_of")
            return lambda value: isinstance(value, list) and any(map(one, value))
        case "or_match":
            tests = [_value(m, f"{field}.or_match.value_matchers[{i}]") for i, m in enumerate(matcher.or_match.value_matchers)]
            return lambda value: any(test(value) for test in tests)
        case kind:
            raise _unsupported(field, kind)


def _double(matcher: Any, field: str) -> Test:
    """Return the test of a DoubleMatcher."""
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
    """Return the test of a StringMatcher."""
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
    """Return the test of a regular expression."""
    import re2  # few servers need it, and it takes memory

    if len(pattern) > _MAX_PATTERN:
        raise invalid(field, f"has {len(pattern)} characters; the maximum is {_MAX_PATTERN}")
    options = re2.Options()
    options.never_capture, options.log_errors, options.max_mem = True, False, _MAX_MEMORY
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        words = error.args[0]
        reason = words.decode(errors="replace") if isinstance(words, bytes) else words
        raise invalid(field, f"is not a regular expression of RE2, which Envoy uses: {reason}") from None
    return lambda value: isinstance(value, str) and len(value) <= _MAX_TEXT and compiled.fullmatch(value) is not None


def _unsupported(field: str, kind: str | None) -> Error:
    return invalid(field, f"{kind} is not supported" if kind else "is empty: give a pattern")
