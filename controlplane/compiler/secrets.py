"""Secrets: sent separately (SDS) from the listeners and clusters that name them, so that a rotation changes neither.

An Envoy subscribes to a secret when it gets a listener or a cluster that names the secret. It does not use the listener or the
cluster before it has the secret. After a rotation, new connections use the new secret, and open connections continue.
"""

from __future__ import annotations

from typing import Any

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from controlplane.compiler.message import over_ads, resource
from controlplane.domain import CaCertificates, Secret, TlsCertificate
from controlplane.envoy_types import SECRET
from controlplane.snapshot import Resource


def compile_secret(secret: Secret) -> Resource:
    """Return the secret, named by its label."""
    message = secret_pb2.Secret(name=secret.name)
    match secret.content:
        case TlsCertificate(chain, key):
            message.tls_certificate.certificate_chain.inline_string = chain
            message.tls_certificate.private_key.inline_string = key
        case CaCertificates(certificates):
            message.validation_context.trusted_ca.inline_string = certificates
    return resource(SECRET, message)


def over_sds(label: str) -> Any:
    """Return the configuration by which a listener or a cluster subscribes to a secret."""
    return secret_pb2.SdsSecretConfig(name=label, sds_config=over_ads())
