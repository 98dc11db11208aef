"""Callers and their identities."""

from __future__ import annotations

import pytest

from controlplane.access.caller import Caller, Credential, parse_identity


@pytest.mark.parametrize(
    ("credential", "name", "identity"),
    [
        (Credential.USER, "anna@example.com", "user:anna@example.com"),
        (Credential.TOKEN, "ci", "token:ci"),
        (Credential.CERTIFICATE, "spiffe://td/ns/ml/sa/ci", "certificate:spiffe://td/ns/ml/sa/ci"),
    ],
)
def test_the_kind_of_credential_is_part_of_the_identity(credential: Credential, name: str, identity: str) -> None:
    assert Caller(credential, name).identity == identity
    assert parse_identity(identity) == Caller(credential, name)


def test_a_caller_without_a_credential_has_no_identity() -> None:
    assert Caller().identity == ""


@pytest.mark.parametrize("text", ["", "anna", "user:", ":anna", "group:ml", "User:anna"])
def test_other_texts_are_no_identity(text: str) -> None:
    assert parse_identity(text) is None
