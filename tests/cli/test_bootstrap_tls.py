"""The options of `turnout bootstrap` for TLS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from controlplane.cli.exits import Exit
from tests.cli.conftest import Run

FILES = ("--tls-cert", "tls/tls.crt", "--tls-key", "tls/tls.key", "--tls-ca", "tls/ca.crt")


def test_a_bootstrap_with_certificate_files_names_sds_files_and_the_server(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("bootstrap", "edge-1", "--xds", "turnout.internal:18000", *FILES, "--sds-dir", "sds", "-o", "json")
    (cluster,) = result.json["static_resources"]["clusters"]
    context = cluster["transport_socket"]["typed_config"]
    validation = context["common_tls_context"]["combined_validation_context"]
    assert (context["sni"], context["common_tls_context"]["alpn_protocols"]) == ("turnout.internal", ["h2"])
    assert validation["default_validation_context"]["match_typed_subject_alt_names"] == [
        {"san_type": "DNS", "matcher": {"exact": "turnout.internal"}}
    ]
    for name, field in (("xds-certificate", "tls_certificate"), ("xds-authorities", "validation_context")):
        file = tmp_path / "sds" / f"{name}.yaml"
        assert str(file) in result.out
        (secret,) = yaml.safe_load(file.read_text())["resources"]
        assert (secret["name"], secret[field]["watched_directory"]) == (name, {"path": str(tmp_path / "tls")})
    for_grpc = run("bootstrap", "app-1", "--client", "grpc", *FILES).json["xds_servers"][0]["channel_creds"]
    assert [(c["type"], c["config"]["ca_certificate_file"]) for c in for_grpc] == [("tls", str(tmp_path / "tls" / "ca.crt"))]


@pytest.mark.parametrize(("name", "kind"), [("spiffe://td/turnout", "URI"), ("10.0.0.1", "IP_ADDRESS"), ("a.example", "DNS")])
def test_a_bootstrap_for_spiffe_asks_the_agent_and_checks_the_servers_name(run: Run, name: str, kind: str) -> None:
    result = run("bootstrap", "edge-1", "--spiffe-socket", "/run/agent.sock", "--tls-server-name", name, "-o", "json")
    clusters = result.json["static_resources"]["clusters"]
    assert [c["name"] for c in clusters] == ["turnout", "spire_agent"]
    context = clusters[0]["transport_socket"]["typed_config"]
    assert f'"san_type": "{kind}"' in json.dumps(context)
    assert context.get("sni") == (name if kind == "DNS" else None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            FILES[:2],
            "--tls-key: is missing: mutual TLS with certificate files needs --tls-cert, --tls-key, --tls-ca, --sds-dir",
        ),
        (FILES, "--sds-dir: is missing"),
        (("--sds-dir", "sds"), "--sds-dir: needs --tls-cert, --tls-key, --tls-ca"),
        (("--tls-server-name", "a"), "--tls-server-name: needs --tls-cert, --tls-key, --tls-ca"),
        ((*FILES, "--spiffe-socket", "/s"), "--tls-cert: the SPIRE agent gives the Envoy its certificates"),
        (("--tls-cert", "a/c", "--tls-key", "b/k", "--tls-ca", "c", "--sds-dir", "s"), "--tls-key: must be in the folder of"),
        (("--client", "grpc", "--spiffe-socket", "/s"), "--spiffe-socket: works only for Envoys"),
        ((*FILES, "--sds-dir", "/dev/null/sds"), "/dev/null/sds/xds-certificate.yaml: can't be written: not a directory"),
    ],
)
def test_wrong_options_for_tls_are_named(run: Run, options: tuple[str, ...], message: str) -> None:
    result = run("bootstrap", "edge-1", *options)
    assert (result.code, result.out) == (Exit.INVALID, "")
    assert message in " ".join(result.err.split())
