"""`turnout check`: what is open, from the settings and the modes of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.cli.settings import SETTINGS
from tests.cli.conftest import Run
from tests.cli.test_reference import section
from tests.store.sqlite.common import create


def opened(run: Run, *flags: str | Path) -> list[str]:
    """Return the names of what is open."""
    listed = run("check", *flags, "-o", "name")
    assert (listed.code, listed.err) == (0, "")
    return listed.out.split("\n")[:-1]


def test_on_loopback_nothing_is_open(run: Run, tmp_path: Path) -> None:
    printed = run("check", "--data", tmp_path / "none").out
    assert "Nothing is open." in printed
    assert "every user of this machine may use: api, xds" in printed


def test_ports_that_others_reach(run: Run, tmp_path: Path) -> None:
    flags = ("--data", tmp_path / "none", "--xds", "0.0.0.0:18000")
    assert opened(run, *flags) == ["xds", "credentials"]
    tls = [f"--xds-{name}={tmp_path / 'file'}" for name in ("tls-cert", "tls-key", "client-ca", "identities")]
    assert opened(run, *flags, *tls) == []
    listed = run("check", *flags, *tls, "-o", "json").json
    assert (listed["open"], [port["tls"] for port in listed["ports"]]) == (0, [False, True, False])
    printed = run("check", *flags, "--insecure").out
    assert "anybody on the network may use: xds" in printed
    assert "2 things open." in printed


def test_modes_of_files(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    create(data)
    flags = ("--data", data)
    assert opened(run, *flags) == []
    assert "so whoever gets a copy of the folder has both" in run("check", *flags).out
    (data / "secret.key").chmod(0o640)
    (data / "turnout.db").chmod(0o604)
    data.chmod(0o755)
    assert opened(run, *flags) == ["sealing key", "data folder", "store"]
    assert f"chmod 0600 {data / 'secret.key'}" in run("check", *flags).out


def test_sources_of_the_sealing_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "from a command: kms" in run("check", "--secret-key-command", "kms get --token abc").out
    assert "abc" not in run("check", "--secret-key-command", "kms get --token abc").out
    monkeypatch.setenv("TURNOUT_SECRET_KEY", "the key")
    printed = run("check").out
    assert "from the environment" in printed
    assert "the key" not in printed


def test_every_setting_is_an_option(run: Run) -> None:
    text = section("check")
    for name in SETTINGS:
        assert f"`--{name.replace('_', '-')}" in text or f"--no-{name}" in text, name


def test_an_audit_log_that_is_off_is_open(run: Run, tmp_path: Path) -> None:
    assert opened(run, "--data", tmp_path / "none", "--audit", "off") == ["audit log"]
    assert "entries also go to syslog" in run("check", "--data", tmp_path / "none", "--audit-export", "syslog").out


def test_files_of_access(run: Run, tmp_path: Path) -> None:
    names = ("access.yaml", "tokens.yaml", "api.pem", "api.key")
    access, tokens, cert, key = (tmp_path / name for name in names)
    access.write_text("rules: []\n")
    for path in (tokens, cert, key):
        path.write_text("tokens: []\n")
    flags = (
        "--data",
        tmp_path / "none",
        "--access",
        access,
        "--api-tokens",
        tokens,
        "--api-tls-cert",
        cert,
        "--api-tls-key",
        key,
    )
    key.chmod(0o600)
    assert opened(run, *flags) == []
    assert opened(run, *flags, "--api", "0.0.0.0:18080") == []
    key.chmod(0o640)
    access.chmod(0o664)
    tokens.chmod(0o602)
    assert opened(run, *flags) == ["key of the API's port", "access file", "token file"]
