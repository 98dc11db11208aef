"""The token file."""

from __future__ import annotations

import pytest

from controlplane.access.tokens import Token, hashed, is_token, is_token_name, parse_tokens
from controlplane.errors import Error

TOKEN = "turnout_" + "a" * 43
HASH = hashed(TOKEN)


def test_tokens_are_found_by_their_hash() -> None:
    text = f"tokens:\n- {{name: ci, sha256: {HASH}, expires: 2027-01-01T00:00:00Z}}\n"
    assert parse_tokens(text, "t.yaml") == {HASH: Token("ci", HASH, 1_798_761_600.0)}
    assert parse_tokens("tokens: []", "t.yaml") == {}


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{name: ci}", "t.yaml:2: tokens[0]: needs `sha256`"),
        ("{name: c i, sha256: " + HASH + "}", "t.yaml:2: tokens[0].name: 'c i' is not letters, digits"),
        ("{name: ci, sha256: " + TOKEN + "}", "t.yaml:2: tokens[0].sha256: is not a SHA-256 in hexadecimal"),
        ("{name: ci, sha256: " + HASH + ", expires: soon}", "t.yaml:2: tokens[0].expires: 'soon' is not a time"),
        (
            "{name: ci, sha256: " + HASH + "}\n- {name: b, sha256: " + HASH + "}",
            "t.yaml:3: tokens[1]: is the token of ci, too",
        ),
    ],
)
def test_errors_name_the_line(entry: str, problem: str) -> None:
    with pytest.raises(Error) as caught:
        parse_tokens(f"tokens:\n- {entry}\n", "t.yaml")
    assert problem in caught.value.message
    # Somebody may have written the token itself into the file. The error must not repeat it.
    assert TOKEN not in caught.value.message


def test_the_forms_of_tokens_and_names() -> None:
    assert is_token(TOKEN)
    assert not is_token(TOKEN + "a")
    assert is_token_name("ci-2@example.com")
    assert not is_token_name("-x")
