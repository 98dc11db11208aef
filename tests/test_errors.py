"""Errors: their fields and merged texts. No text may contain a private key, whole or cut off."""

from __future__ import annotations

import pytest

from controlplane.errors import (
    Code,
    Collector,
    Error,
    Violation,
    abbreviated,
    escaped,
    failed_precondition,
    invalid,
    join_path,
    merged,
    not_found,
    other_history,
    prefixed,
    redacted,
    renamed,
    shortened,
    stale_etag,
    within,
)
from tests.pki import marks, pair

KEY = pair().key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing to hide: PRIVATE KEY", "nothing to hide: PRIVATE KEY"),
        (f"before {KEY}after", "before [a private key]\nafter"),
        (f"two {KEY}{KEY}", "two [a private key]\n[a private key]\n"),
        (f"cut off {KEY[:100]}", "cut off [a private key]"),
        (f"on one line {' '.join(KEY.split())}.", "on one line [a private key]."),
        (f"escaped {KEY!r}", "escaped '[a private key]\\n'"),
        (KEY.replace("PRIVATE", "RSA PRIVATE"), "[a private key]\n"),
        (pair().certificate, pair().certificate),
    ],
)
def test_private_keys_are_removed_from_texts(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_no_error_holds_a_private_key() -> None:
    error = Error(Code.INTERNAL, "X", f"wrong: {KEY}", violations=(Violation(f"a.{KEY}", f"is {KEY}"),))
    text = repr((error, error.args, error.message, error.violations))
    assert not any(mark in text for mark in marks(KEY))
    assert error.message == "wrong: [a private key]\n"


def test_long_texts_are_cut_off() -> None:
    assert shortened("short") == "short"
    assert shortened("x" * 5_000_000) == f"{'x' * 4_000} … (4996000 more characters)"


@pytest.mark.parametrize(
    ("text", "keep", "expected"),
    [
        ("plain é 漢", "", "plain é 漢"),
        ("a\x1b[31mb", "", "a\\u001b[31mb"),
        ("two\nlines\ttab", "", "two\\u000alines\\u0009tab"),
        ("two\nlines\ttab", "\n", "two\nlines\\u0009tab"),
        ("turned \u202e text", "", "turned \\u202e text"),
        ("wide\u3000space", "", "wide\u3000space"),
        ("unassigned \U000e0fff", "", "unassigned \\U000e0fff"),
    ],
)
def test_control_and_invisible_characters_are_escaped(text: str, keep: str, expected: str) -> None:
    assert escaped(text, keep) == expected


@pytest.mark.parametrize(
    ("error", "code", "reason", "message", "fields"),
    [
        (invalid("port", "is wrong"), Code.INVALID_ARGUMENT, "INVALID_FIELD", "port: is wrong", ["port"]),
        (invalid("port", "is wrong", "R"), Code.INVALID_ARGUMENT, "R", "port: is wrong", ["port"]),
        (not_found("models/a"), Code.NOT_FOUND, "NOT_FOUND", "models/a does not exist", []),
        (not_found("models/a", "there are: b"), Code.NOT_FOUND, "NOT_FOUND", "models/a does not exist; there are: b", []),
        (failed_precondition("R", "port", "is taken"), Code.FAILED_PRECONDITION, "R", "port: is taken", ["port"]),
        (failed_precondition("R", "", "not now"), Code.FAILED_PRECONDITION, "R", "not now", []),
    ],
)
def test_constructors_set_code_reason_message_and_field(
    error: Error, code: Code, reason: str, message: str, fields: list[str]
) -> None:
    assert (error.code, error.reason, error.message) == (code, reason, message)
    assert [v.field for v in error.violations] == fields


def test_an_error_about_another_history_names_both_and_the_cause() -> None:
    error = other_history("etag 7a0b93c1-3", "7a0b93c1", "0c0c0c0c", "Read models/a again", "models/a")
    assert (error.code, error.reason) == (Code.ABORTED, "OTHER_HISTORY")
    assert error.metadata == {"name": "models/a", "given": "7a0b93c1", "live": "0c0c0c0c"}
    assert error.message == (
        "etag 7a0b93c1-3 is of history 7a0b93c1, and this control plane has history 0c0c0c0c: its store was restored from a "
        "backup or started anew in the meantime, or the caller read from another control plane. Read models/a again"
    )


def test_a_stale_etag_error_names_the_sent_and_the_live_etag() -> None:
    error = stale_etag("models/a", "3", "5")
    assert (error.code, error.reason) == (Code.ABORTED, "STALE_ETAG")
    assert error.metadata == {"name": "models/a", "given": "3", "live": "5"}
    assert "etag 3 was sent, 5 is live" in error.message


@pytest.mark.parametrize(
    ("prefix", "field", "path"),
    [("a", "b", "a.b"), ("a", "[0]", "a[0]"), ("a", "", "a"), ("", "b", "b"), ("", "", "")],
)
def test_a_field_is_joined_to_the_path_of_its_parent(prefix: str, field: str, path: str) -> None:
    assert join_path(prefix, field) == path


def test_fields_are_prefixed_and_renamed() -> None:
    error = prefixed(invalid("port", "is wrong"), "gateways[0]")
    assert (error.message, error.violations[0].field) == ("gateways[0].port: is wrong", "gateways[0].port")
    two = merged([invalid("a", "x"), invalid("b", "y")])
    upper = renamed(two, str.upper)
    assert [v.field for v in upper.violations] == ["A", "B"]
    assert upper.message == two.message == "a: x; b: y", "a text about several fields stays as it is"


def test_within_adds_its_prefix_to_the_fields_of_an_error() -> None:
    with pytest.raises(Error, match=r"model\.name: is required"), within("model"):
        raise invalid("name", "is required")


def test_a_collector_raises_its_errors_as_one() -> None:
    collector = Collector()
    collector.check()
    with collector.within("a"):
        raise failed_precondition("FIRST", "x", "is wrong", key="value")
    with collector.within(""):
        pass
    with collector.within(""):
        raise invalid("y", "is wrong")
    with pytest.raises(Error) as caught:
        collector.check()
    assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, "FIRST")
    assert caught.value.message == "a.x: is wrong; y: is wrong"
    assert [v.field for v in caught.value.violations] == ["a.x", "y"]
    assert caught.value.metadata == {"key": "value"}


@pytest.mark.parametrize(("count", "text"), [(0, ""), (1, "n0"), (3, "n0, n1, n2"), (4, "n0, n1, n2 and 1 more")])
def test_long_lists_are_abbreviated(count: int, text: str) -> None:
    assert abbreviated([f"n{i}" for i in range(count)], limit=3) == text
