"""`turnout bootstrap`: for Envoys and for gRPC programs."""

from __future__ import annotations

import json

import pytest
import yaml

from controlplane.cli import envoy
from controlplane.cli.exits import Exit
from tests.cli.conftest import Run


def test_bootstrap(run: Run) -> None:
    result = run("bootstrap", "edge-1", "--cluster", "public", "--xds", "10.1.2.3:99", "--admin-port", "0")
    bootstrap = yaml.safe_load(result.out)
    assert bootstrap["node"] == {"id": "edge-1", "cluster": "public"}
    assert bootstrap["dynamic_resources"]["ads_config"]["api_type"] == "DELTA_GRPC"
    assert '"10.1.2.3"' in json.dumps(bootstrap)
    sotw = run("bootstrap", "edge-1", "--variant", "sotw", "-o", "json").json
    assert sotw["dynamic_resources"]["ads_config"]["api_type"] == "GRPC"
    assert run("bootstrap", "edge-1", "--xds", "nowhere").code == Exit.INVALID
    no_id = run("bootstrap", "")
    assert (no_id.code, no_id.out, "NODE_ID: is empty" in no_id.err) == (Exit.USAGE, "", True)


@pytest.mark.parametrize(
    "option", [("--variant", "sotw"), ("--admin-port", "0"), ("--no-load-reports",), ("--max-memory", "1024")]
)
def test_options_for_envoys_are_errors_for_grpc(run: Run, option: tuple[str, ...]) -> None:
    result = run("bootstrap", "app-1", "--client", "grpc", *option)
    assert (result.code, result.out, option[0] in result.err) == (Exit.USAGE, "", True)


def test_a_bootstrap_contains_locality_and_models(run: Run) -> None:
    options = ("--model", "iris", "--model", "wine", "--region", "eu", "--zone", "eu-1", "--sub-zone", "a")
    node = {
        "id": "app-1",
        "cluster": "turnout",
        "locality": {"region": "eu", "zone": "eu-1", "sub_zone": "a"},
        "metadata": {"turnout.models": ["iris", "wine"]},
    }
    assert yaml.safe_load(run("bootstrap", "app-1", *options).out)["node"] == node
    assert run("bootstrap", "app-1", "--client", "grpc", *options).json == {
        "xds_servers": [
            {"server_uri": "127.0.0.1:18000", "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
        ],
        "node": node,
    }
    assert run("bootstrap", "app-1", "--client", "grpc", "-o", "json").json["node"]["locality"] == {}
    assert run("bootstrap", "app-1", "--client", "grpc", "-o", "table").code == Exit.USAGE


@pytest.mark.envoy
@pytest.mark.parametrize("variant", ["delta", "sotw"])
def test_a_real_envoy_accepts_a_bootstrap(run: Run, variant: str) -> None:
    assert "Envoy 1." in envoy.validate([run("bootstrap", "edge-1", "--variant", variant, "-o", "json").out])
