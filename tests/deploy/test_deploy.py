"""The files in deploy/, checked without a running systemd and without a container engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.cli.settings import config
from controlplane.errors import Error
from tests.tools import program

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "turnout.service"


@pytest.fixture
def systemd_analyze() -> str:
    return program("systemd-analyze", "the unit is not verified")


def test_the_unit_verifies(systemd_analyze: str, tmp_path: Path) -> None:
    unit = tmp_path / "turnout.service"
    unit.write_text(UNIT.read_text().replace("/opt/turnout/bin/turnout", sys.executable))
    result = subprocess.run([systemd_analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_unit_is_locked_down(systemd_analyze: str) -> None:
    result = subprocess.run(
        [systemd_analyze, "security", "--offline=true", "--threshold=20", UNIT], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-300:] + result.stderr


@pytest.mark.parametrize("name", ["Containerfile", "Containerfile.demo"])
def test_every_path_that_a_container_file_copies_exists(name: str) -> None:
    lines = (ROOT / "deploy" / name).read_text().splitlines()
    copied = [p for line in lines if line.startswith("COPY") and "--from" not in line for p in line.split()[1:-1]]
    assert copied
    assert [p for p in copied if not (ROOT / p).exists()] == []


def test_turnout_knows_every_command_that_deploy_runs() -> None:
    text = "".join(p.read_text() for p in (ROOT / "deploy").iterdir() if p.name != "README.md")
    commands = set(re.findall(r'bin/turnout (\w+)|"turnout", "(\w+)"|CMD \["(\w+)"', text))
    for name in {n for groups in commands for n in groups if n}:
        subprocess.run([Path(sys.executable).parent / "turnout", name, "--help"], check=True, capture_output=True)
    flags = set(re.findall(r'"(--\w+)"', text)) | set(re.findall(r"turnout serve (--\w+)", text))
    serve = subprocess.run(
        [Path(sys.executable).parent / "turnout", "serve", "--help"], check=True, capture_output=True, text=True
    ).stdout
    assert flags
    assert [f for f in flags if f not in serve] == []


def test_the_container_listens_with_tls_and_not_without() -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text()
    environ = dict(re.findall(r"(TURNOUT_\w+)=(\S+)", text))
    command = json.loads(re.findall(r"^CMD (.*)$", text, re.MULTILINE)[0])
    assert command[:2] == ["serve", "--xds"]
    config({"xds": command[2]}, None, environ, serving=True)
    without = {name: value for name, value in environ.items() if "_XDS_" not in name}
    with pytest.raises(Error, match="this port has no TLS"):
        config({"xds": command[2]}, None, without, serving=True)
