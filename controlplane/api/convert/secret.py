"""Secrets as protos and back. A private key goes in, and never out."""

from __future__ import annotations

from controlplane.api.convert.names import label, timestamp, tried
from controlplane.domain import (
    CaCertificates,
    Secret,
    TlsCertificate,
    check_label,
    pem,
)
from controlplane.domain.revision import ObjectMeta
from controlplane.errors import Collector, Error, invalid, within
from controlplane.generated.turnout.v1 import secret_pb2


def secret_to_proto(secret: Secret, kept: ObjectMeta | None = None) -> secret_pb2.Secret:
    """The secret as the API shows it: without its private key. `kept` is None where it is not kept (yet)."""
    proto = secret_pb2.Secret(name=secret.resource_name)
    match secret.content:
        case TlsCertificate() as tls:
            proto.tls_certificate.certificate_chain_pem = tls.certificate_chain_pem
            proto.tls_certificate.leaf.CopyFrom(_certificate_to_proto(tls.leaf))
        case CaCertificates() as ca:
            proto.ca_certificates.ca_certificates_pem = ca.ca_certificates_pem
            proto.ca_certificates.certificates.extend(map(_certificate_to_proto, ca.certificates))
    if kept is not None:
        proto.etag = str(kept.revision)
        proto.create_time.CopyFrom(timestamp(kept.create_time))
        proto.update_time.CopyFrom(timestamp(kept.update_time))
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
    """The secret that a caller sent; a private key that it leaves out is that of `live`.

    Errors: INVALID_ARGUMENT with every field that is wrong, from the secret down; none says what a key is.
    """
    c = Collector()
    name = tried(c, "", lambda: label(proto.name, Secret, "name"))
    with c.within(""):
        check_label(name or "stand-in")
    content = tried(c, "", lambda: _content(proto, live))
    c.check()
    assert name is not None
    assert content is not None
    return Secret(name, content)


def _content(proto: secret_pb2.Secret, live: Secret | None) -> TlsCertificate | CaCertificates:
    match proto.WhichOneof("content"):
        case "tls_certificate":
            sent = proto.tls_certificate
            with within("tls_certificate"):
                if sent.private_key_pem or live is None or not isinstance(live.content, TlsCertificate):
                    return TlsCertificate(sent.certificate_chain_pem, sent.private_key_pem)
                return _with_kept_key(sent.certificate_chain_pem, live.content.private_key_pem)
        case "ca_certificates":
            with within("ca_certificates"):
                return CaCertificates(proto.ca_certificates.ca_certificates_pem)
        case _:
            raise invalid("", "say either tls_certificate or ca_certificates")


def _with_kept_key(chain: str, key: str) -> TlsCertificate:
    try:
        return TlsCertificate(chain, key)
    except Error as error:
        if error.reason != "KEY_MISMATCH":
            raise
    raise invalid("private_key_pem", "is required: the key that is kept is not that of this certificate", "KEY_REQUIRED")


def check_sound(proto: secret_pb2.Secret) -> None:
    """Nothing when the private key that a caller sent is sound: it takes longest of all that is asked. Errors: INVALID."""
    if proto.tls_certificate.private_key_pem:
        pem.check_sound(proto.tls_certificate.private_key_pem, "tls_certificate.private_key_pem")
