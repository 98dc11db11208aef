"""Secrets: texts are normalised, and no text form shows a private key."""

from __future__ import annotations

import pytest

from controlplane.domain import SECRET_KINDS, OpaqueValue, Secret, TlsCertificate
from controlplane.errors import Error
from tests.pki import authority, marks, pair

PAIR = pair("a.example")


def test_the_kind_is_the_name_of_the_contents_class() -> None:
    assert PAIR.secret().kind == "tls_certificate"
    assert authority().secret().kind == "ca_certificates"
    assert Secret("key", OpaqueValue("sk-1")).kind == "opaque"
    assert {PAIR.secret().kind, authority().secret().kind, "opaque"} == SECRET_KINDS.keys()


def test_a_secret_has_a_resource_name_and_no_references() -> None:
    assert PAIR.secret("edge").resource_name == "secrets/edge"
    assert PAIR.secret().references == ()
    with pytest.raises(Error) as caught:
        PAIR.secret("Edge")
    assert caught.value.violations[0].field == "name"


def test_the_leaf_is_the_first_certificate() -> None:
    content = PAIR.secret().content
    assert isinstance(content, TlsCertificate)
    assert content.leaf.subject == "CN=a.example"


def test_no_text_form_shows_a_private_key() -> None:
    secret = PAIR.secret()
    assert not any(mark in f"{secret!r}{secret}" for mark in marks(PAIR.key))


def test_certificates_with_other_line_ends_are_equal() -> None:
    certificate = PAIR.certificate.replace("\n", "\r\n")
    assert Secret("edge", TlsCertificate(certificate, PAIR.key)) == PAIR.secret("edge")


def test_an_opaque_value_is_the_value_of_a_header_and_no_text_form_shows_it() -> None:
    secret = Secret("key", OpaqueValue("sk-1234 5678"))
    assert "1234" not in f"{secret!r}{secret}"
    for bad in ("", " a", "a ", "a\nb", "a\0", "schlüssel", "x" * 8193):
        with pytest.raises(Error) as caught:
            OpaqueValue(bad)
        assert [v.field for v in caught.value.violations] == ["value"]
        assert not bad.strip() or bad not in repr((caught.value, caught.value.violations))
