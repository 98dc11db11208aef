"""Conversion of secrets: a private key is read and never written."""

from __future__ import annotations

import pytest

from controlplane.api.convert.secret import check_key_numbers, secret_from_proto, secret_to_proto
from controlplane.domain import CaCertificates, OpaqueValue, Secret, TlsCertificate
from controlplane.domain.revision import ObjectMeta
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1 import secret_pb2
from tests.pki import authority, marks, pair

OLD, NEW = pair("old.example"), pair("new.example")
STORED = Secret("edge", TlsCertificate(OLD.certificate, OLD.key))


def message(chain: str, key: str = "") -> secret_pb2.Secret:
    certificate = secret_pb2.TlsCertificate(certificate_chain_pem=chain, private_key_pem=key)
    return secret_pb2.Secret(name="edge", tls_certificate=certificate)


def test_a_message_has_no_private_key() -> None:
    written = secret_to_proto(STORED, ObjectMeta(7, 100.5, 200.25, "7a0b93c1"))
    assert (written.name, written.etag, written.create_time.seconds) == ("secrets/edge", "7a0b93c1-7", 100)
    assert written.tls_certificate.leaf.subject == "CN=old.example"
    assert written.tls_certificate.certificate_chain_pem == OLD.certificate
    assert not any(mark in str(written) for mark in marks(OLD.key))
    assert secret_to_proto(STORED).etag == ""


def test_an_unset_private_key_is_the_stored_one() -> None:
    assert secret_from_proto(secret_to_proto(STORED), STORED) == STORED
    assert secret_from_proto(message(NEW.certificate, NEW.key), STORED).content == TlsCertificate(NEW.certificate, NEW.key)


def test_authorities_survive_both_conversions() -> None:
    secret = Secret("ca", CaCertificates(authority().certificate))
    written = secret_to_proto(secret)
    assert len(written.ca_certificates.certificates) == 1
    assert secret_from_proto(written) == secret


@pytest.mark.parametrize(
    ("sent", "live", "field", "reason"),
    [
        (message(NEW.certificate), STORED, "tls_certificate.private_key_pem", "KEY_REQUIRED"),
        (message(NEW.certificate), None, "tls_certificate.private_key_pem", "KEY_REQUIRED"),
        (message(NEW.certificate, OLD.key), None, "tls_certificate.private_key_pem", "KEY_MISMATCH"),
        (secret_pb2.Secret(name="edge"), None, "", "INVALID_FIELD"),
        (message(OLD.key), STORED, "tls_certificate.certificate_chain_pem", "INVALID_FIELD"),
    ],
)
def test_an_error_names_its_field_and_quotes_no_key(
    sent: secret_pb2.Secret, live: Secret | None, field: str, reason: str
) -> None:
    with pytest.raises(Error) as caught:
        secret_from_proto(sent, live)
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, reason)
    assert [v.field for v in caught.value.violations] == [field]
    assert not any(mark in str(caught.value) for mark in marks(OLD.key))


def test_the_name_and_the_content_are_checked_together() -> None:
    sent = message(OLD.certificate, NEW.key)
    sent.name = "Edge"
    with pytest.raises(Error) as caught:
        secret_from_proto(sent)
    assert [v.field for v in caught.value.violations] == ["name", "tls_certificate.private_key_pem"]


def test_a_valid_key_and_no_key_are_accepted() -> None:
    check_key_numbers(message(OLD.certificate, OLD.key))
    check_key_numbers(message(OLD.certificate))


def test_an_opaque_value_is_read_and_never_written() -> None:
    stored = Secret("key", OpaqueValue("sk-1234"))
    written = secret_to_proto(stored)
    assert (written.WhichOneof("content"), "sk-1234" in str(written)) == ("opaque", False)
    assert secret_from_proto(written, stored) == stored
    rotated = secret_pb2.Secret(name="key", opaque=secret_pb2.OpaqueValue(value="sk-5678"))
    assert secret_from_proto(rotated, stored).content == OpaqueValue("sk-5678")
    for live in (None, STORED):
        with pytest.raises(Error) as caught:
            secret_from_proto(written, live)
        assert ([v.field for v in caught.value.violations], caught.value.reason) == (["opaque.value"], "VALUE_REQUIRED")
