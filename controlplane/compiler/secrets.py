"""Secrets: sent separately (SDS) from the listeners and clusters that name them, so that a rotation changes neither.

An Envoy subscribes to a secret when it gets a listener or a cluster that names the secret. It does not use the listener or the
cluster before it has the secret. After a rotation, new connections use the new secret, and open connections continue.
"""

from __future__ import annotations

from typing import Any

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from controlplane.compiler.message import over_ads, resource
from controlplane.domain import CaCertificates, Credential, OpaqueValue, Secret, TlsCertificate
from controlplane.envoy_types import SECRET
from controlplane.snapshot import Resource


def credential_name(credential: Credential) -> str:
    """Return the name of the resource that a credential needs: `SECRET`, or `SECRET/SCHEME` if the value has a scheme.

    The oldest supported Envoy can't write a scheme before the value itself.
    """
    return f"{credential.secret}/{credential.scheme}" if credential.scheme else credential.secret


def secret_label(name: str) -> str:
    """Return the label of the secret that a resource was compiled from. Labels have no slash."""
    return name.partition("/")[0]


def compile_secret(secret: Secret, name: str) -> Resource:
    """Return the secret as the resource with a name: its label, for an opaque value also that of a credential."""
    message = secret_pb2.Secret(name=name)
    match secret.content:
        case TlsCertificate(chain, key):
            message.tls_certificate.certificate_chain.inline_string = chain
            message.tls_certificate.private_key.inline_string = key
        case CaCertificates(certificates):
            message.validation_context.trusted_ca.inline_string = certificates
        case OpaqueValue(value):
            scheme = name.partition("/")[2]
            message.generic_secret.secret.inline_string = f"{scheme} {value}" if scheme else value
    return resource(SECRET, message)


def over_sds(name: str) -> Any:
    """Return the configuration by which a listener or a cluster subscribes to a secret."""
    return secret_pb2.SdsSecretConfig(name=name, sds_config=over_ads())
