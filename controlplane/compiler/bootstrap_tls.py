"""The TLS in bootstraps: where a node has its certificate from, and how it knows the control plane.

An Envoy gets certificates over SDS only, because it never reads again a file that its bootstrap names. Two sources:

    certificate files    two SDS files, which Envoy watches, name the certificate, its key and the authorities
    SPIFFE               the SPIRE agent's SDS over its Unix socket: the certificate `default` and the bundle `ROOTCA`

The name of the control plane is in the bootstrap, and not beside the authorities: whoever may replace those can't change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.domain import is_ip
from controlplane.envoy_types import url_of

_TLS = url_of("envoy.extensions.transport_sockets.tls.v3.")
_HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
AGENT_CLUSTER = "spire_agent"

# Names of the secrets, and of the SDS files that have them.
CERTIFICATE, AUTHORITIES = "xds-certificate", "xds-authorities"
# Names of the secrets in the SDS of a SPIRE agent.
_SVID, _BUNDLE = "default", "ROOTCA"


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A node's certificate in files, by absolute path. Each of the folders is watched."""

    certificate: str
    key: str
    # The authorities that sign the control plane's certificate.
    authorities: str
    # The folder of the SDS files; "" for gRPC's clients, which need none.
    sds: str = ""


@dataclass(frozen=True, slots=True)
class SpireAgent:
    """A SPIRE agent that gives a node its certificate."""

    socket: str


@dataclass(frozen=True, slots=True)
class BootstrapTls:
    """The TLS between a node and the control plane."""

    source: CertificateFiles | SpireAgent
    # The name that the control plane's certificate must have: a DNS name, an IP address or a SPIFFE ID.
    server_name: str


def transport_socket(tls: BootstrapTls) -> dict[str, object]:
    """Return the transport socket of an Envoy's cluster of the control plane."""
    certificate, authorities = _sds_configs(tls.source)
    context: dict[str, object] = {
        "@type": f"{_TLS}UpstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificate_sds_secret_configs": [certificate],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [_san(tls.server_name)]},
                "validation_context_sds_secret_config": authorities,
            },
        },
    }
    if "/" not in tls.server_name and not is_ip(tls.server_name):
        context["sni"] = tls.server_name
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def agent_cluster(agent: SpireAgent) -> dict[str, object]:
    """Return an Envoy's cluster of its SPIRE agent."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": agent.socket}}}}
    return {
        "name": AGENT_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            _HTTP2: {"@type": url_of(_HTTP2), "explicit_http_config": {"http2_protocol_options": {}}}
        },
        "load_assignment": {"cluster_name": AGENT_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def sds_files(files: CertificateFiles) -> dict[str, dict[str, object]]:
    """Return the SDS files of a node by their paths: Envoy's DiscoveryResponse messages in JSON form."""
    certificate = {
        "certificate_chain": {"filename": files.certificate},
        "private_key": {"filename": files.key},
        "watched_directory": _folder(files.certificate),
    }
    authorities = {"trusted_ca": {"filename": files.authorities}, "watched_directory": _folder(files.authorities)}
    return {
        _sds_path(files, CERTIFICATE): _secret(CERTIFICATE, "tls_certificate", certificate),
        _sds_path(files, AUTHORITIES): _secret(AUTHORITIES, "validation_context", authorities),
    }


def grpc_credentials(files: CertificateFiles) -> dict[str, object]:
    """Return the credentials in the bootstrap of a gRPC client (gRFC A65). It reads the files again every 10 s.

    It checks that the control plane's certificate has the host of `server_uri`.
    """
    config = {
        "certificate_file": files.certificate,
        "private_key_file": files.key,
        "ca_certificate_file": files.authorities,
        "refresh_interval": "10s",
    }
    return {"type": "tls", "config": config}


def _sds_configs(source: CertificateFiles | SpireAgent) -> tuple[dict[str, object], dict[str, object]]:
    """Return Envoy's SdsSecretConfigs of the certificate and of the authorities."""
    if isinstance(source, SpireAgent):
        grpc = {"envoy_grpc": {"cluster_name": AGENT_CLUSTER}}
        api = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [grpc]}
        config = {"resource_api_version": "V3", "api_config_source": api}
        return {"name": _SVID, "sds_config": config}, {"name": _BUNDLE, "sds_config": dict(config)}
    return _in_file(source, CERTIFICATE), _in_file(source, AUTHORITIES)


def _in_file(files: CertificateFiles, name: str) -> dict[str, object]:
    """Return Envoy's SdsSecretConfig of a secret in a file."""
    config = {"resource_api_version": "V3", "path_config_source": {"path": _sds_path(files, name)}}
    return {"name": name, "sds_config": config}


def _sds_path(files: CertificateFiles, name: str) -> str:
    return f"{files.sds}/{name}.yaml"


def _secret(name: str, kind: str, content: Mapping[str, object]) -> dict[str, object]:
    return {"resources": [{"@type": f"{_TLS}Secret", "name": name, kind: content}]}


def _folder(path: str) -> dict[str, str]:
    return {"path": path.rpartition("/")[0] or "/"}


def _san(name: str) -> dict[str, object]:
    kind = "URI" if "/" in name else "IP_ADDRESS" if is_ip(name) else "DNS"
    return {"san_type": kind, "matcher": {"exact": name}}
