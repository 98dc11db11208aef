"""The net below what errors, logs and NACKs say: no private key gets through, whole or cut off."""

from __future__ import annotations

import pytest

from controlplane.errors import Code, Error, Violation, redacted, shortened
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
def test_keys_are_taken_out(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_no_error_carries_one() -> None:
    error = Error(Code.INTERNAL, "X", f"wrong: {KEY}", violations=(Violation(f"a.{KEY}", f"is {KEY}"),))
    said = repr((error, error.args, error.message, error.violations))
    assert not any(mark in said for mark in marks(KEY))
    assert error.message == "wrong: [a private key]\n"


def test_long_words_are_cut_off() -> None:
    assert shortened("short") == "short"
    assert shortened("x" * 5_000_000) == f"{'x' * 4_000} … (4996000 more characters)"
