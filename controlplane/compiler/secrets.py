"""Secrets: what listeners and clusters name, sent on its own (SDS), so that a rotation changes neither.

An Envoy asks for a secret by its name when a listener or a cluster that names it comes, and holds that back until it has it.
What it is sent later under the same name it uses for new connections; those that are open go on.
"""

from __future__ import annotations

from typing import Any

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from controlplane.compiler.message import over_ads, resource
from controlplane.domain import CaCertificates, Secret, TlsCertificate
from controlplane.envoy_types import SECRET
from controlplane.snapshot import Resource


def compile_secret(secret: Secret) -> Resource:
    """The secret, named by its label."""
    message = secret_pb2.Secret(name=secret.name)
    match secret.content:
        case TlsCertificate(chain, key):
            message.tls_certificate.certificate_chain.inline_string = chain
            message.tls_certificate.private_key.inline_string = key
        case CaCertificates(certificates):
            message.validation_context.trusted_ca.inline_string = certificates
    return resource(SECRET, message)


def over_sds(label: str) -> Any:
    """Where a listener or a cluster finds a secret."""
    return secret_pb2.SdsSecretConfig(name=label, sds_config=over_ads())
