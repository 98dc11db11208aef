"""Conversion of secrets to messages and back. No message that it returns contains a private key or an opaque value."""

from __future__ import annotations

from controlplane.api.convert.converter import Converter
from controlplane.api.convert.names import collected, label, set_meta, timestamp
from controlplane.domain import (
    CaCertificates,
    OpaqueValue,
    Secret,
    TlsCertificate,
    check_label,
    pem,
)
from controlplane.domain.revision import ObjectMeta
from controlplane.errors import Collector, Error, invalid, within
from controlplane.generated.turnout.v1 import secret_pb2


def secret_to_proto(secret: Secret, meta: ObjectMeta | None = None) -> secret_pb2.Secret:
    """Return the message of a secret, without its private key or value. `meta` is None if the secret is not stored."""
    proto = secret_pb2.Secret(name=secret.resource_name)
    match secret.content:
        case TlsCertificate() as tls:
            proto.tls_certificate.certificate_chain_pem = tls.certificate_chain_pem
            proto.tls_certificate.leaf.CopyFrom(_certificate_to_proto(tls.leaf))
        case CaCertificates() as ca:
            proto.ca_certificates.ca_certificates_pem = ca.ca_certificates_pem
            proto.ca_certificates.certificates.extend(map(_certificate_to_proto, ca.certificates))
        case OpaqueValue():
            proto.opaque.SetInParent()
    set_meta(proto, meta)
    return proto


def _certificate_to_proto(certificate: pem.Certificate) -> secret_pb2.Certificate:
    return secret_pb2.Certificate(
        sha256=certificate.sha256,
        subject=certificate.subject,
        sans=certificate.sans,
        not_before=timestamp(certificate.not_before),
        not_after=timestamp(certificate.not_after),
    )


def secret_from_proto(proto: secret_pb2.Secret, live: Secret | None = None) -> Secret:
    """Return the secret of a message. An unset private key or value is that of `live`.

    Errors: INVALID_ARGUMENT with every wrong field, by its path in the secret; no text contains a key or a value.
    """
    c = Collector()
    name = collected(c, "", lambda: label(proto.name, Secret, "name"))
    with c.within(""):
        check_label(name or "placeholder")
    content = collected(c, "", lambda: _content(proto, live))
    c.check()
    assert name is not None
    assert content is not None
    return Secret(name, content)


def _content(proto: secret_pb2.Secret, live: Secret | None) -> TlsCertificate | CaCertificates | OpaqueValue:
    """Return the content of a secret. Errors: INVALID_ARGUMENT at its fields."""
    match proto.WhichOneof("content"):
        case "tls_certificate":
            sent = proto.tls_certificate
            with within("tls_certificate"):
                if sent.private_key_pem or live is None or not isinstance(live.content, TlsCertificate):
                    return TlsCertificate(sent.certificate_chain_pem, sent.private_key_pem)
                return _with_stored_key(sent.certificate_chain_pem, live.content.private_key_pem)
        case "ca_certificates":
            with within("ca_certificates"):
                return CaCertificates(proto.ca_certificates.ca_certificates_pem)
        case "opaque":
            if not proto.opaque.value and live is not None and isinstance(live.content, OpaqueValue):
                return live.content
            with within("opaque"):
                return OpaqueValue(proto.opaque.value)
        case _:
            raise invalid("", "one of tls_certificate, ca_certificates and opaque is required")


def _with_stored_key(chain: str, key: str) -> TlsCertificate:
    """Return a certificate with the stored key. Errors: INVALID_ARGUMENT / KEY_REQUIRED if they do not belong together."""
    try:
        return TlsCertificate(chain, key)
    except Error as error:
        if error.reason != "KEY_MISMATCH":
            raise
    raise invalid("private_key_pem", "is required: the stored key does not belong to this certificate", "KEY_REQUIRED")


def check_key_numbers(proto: secret_pb2.Secret) -> None:
    """Check that the numbers of the private key in a message are valid: the slowest check. Errors: INVALID_ARGUMENT."""
    if proto.tls_certificate.private_key_pem:
        pem.check_key_numbers(proto.tls_certificate.private_key_pem, "tls_certificate.private_key_pem")


def _checked_secret(proto: secret_pb2.Secret, live: Secret | None) -> Secret:
    """Return the secret of a message, after all checks. Errors: as `secret_from_proto` and `check_key_numbers`."""
    secret = secret_from_proto(proto, live)
    check_key_numbers(proto)
    return secret


CONVERTER = Converter(_checked_secret, secret_to_proto)
