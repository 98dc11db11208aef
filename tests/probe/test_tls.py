"""TLS settings towards endpoints."""

from __future__ import annotations

import ssl

from controlplane.domain import Protocol, UpstreamTls
from controlplane.probe.tls import client_context
from tests import pki


def test_certificates_are_verified_against_the_authorities() -> None:
    context = client_context(UpstreamTls("green.test"), Protocol.HTTP1, pki.Authority().certificate)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1


def test_every_certificate_is_accepted_only_if_the_version_says_so() -> None:
    context = client_context(UpstreamTls(insecure_skip_verify=True), Protocol.GRPC, "")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
