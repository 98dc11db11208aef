"""The TLS in bootstraps."""

from __future__ import annotations

import json

import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

from controlplane.cli import envoy
from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.compiler.bootstrap_tls import BootstrapTls, CertificateFiles, SpireAgent, sds_files, transport_socket

FILES = CertificateFiles("/tls/tls.crt", "/tls/tls.key", "/ca/ca.crt", "/sds")


def test_sds_files_are_messages_of_envoy_that_watch_the_folders() -> None:
    folders = {}
    for path, content in sds_files(FILES).items():
        response = json_format.ParseDict(content, discovery_pb2.DiscoveryResponse())
        secret = secret_pb2.Secret.FromString(response.resources[0].value)
        kind = getattr(secret, str(secret.WhichOneof("type")))
        folders[path] = (secret.name, kind.watched_directory.path)
    assert folders == {
        "/sds/xds-certificate.yaml": ("xds-certificate", "/tls"),
        "/sds/xds-authorities.yaml": ("xds-authorities", "/ca"),
    }


@pytest.mark.parametrize("source", [FILES, SpireAgent("/run/agent.sock")])
def test_the_name_of_the_server_is_in_the_bootstrap_alone(
    source: CertificateFiles | SpireAgent,
) -> None:
    assert '"exact": "turnout.internal"' in str(transport_socket(BootstrapTls(source, "turnout.internal"))).replace("'", '"')
    assert "turnout.internal" not in str(sds_files(FILES))


@pytest.mark.envoy
def test_a_real_envoy_accepts_a_bootstrap_with_an_agent() -> None:
    tls = BootstrapTls(SpireAgent("/run/agent.sock"), "spiffe://td/turnout")
    assert "Envoy 1." in envoy.validate([json.dumps(node_bootstrap("edge-1", tls=tls))])
