"""The server's settings: which source overrides which, and the texts for wrong values."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controlplane.cli.settings import config, default_data
from controlplane.config import Address, Config
from controlplane.errors import Error
from tests.store.sqlite.common import create


def test_the_defaults_are_those_of_the_config() -> None:
    assert config({}, None, {}) == Config()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/var/lib/turnout"),
        ({"HOME": "/"}, "/var/lib/turnout"),
        ({"HOME": "/nonexistent"}, "/var/lib/turnout"),
        ({"HOME": "/tmp"}, "/tmp/.local/state/turnout"),
        ({"HOME": "/tmp", "XDG_STATE_HOME": "relative"}, "/tmp/.local/state/turnout"),
        ({"HOME": "/tmp", "XDG_STATE_HOME": "/state"}, "/state/turnout"),
        ({"XDG_STATE_HOME": "/state", "STATE_DIRECTORY": "/var/lib/private/turnout:/other"}, "/var/lib/private/turnout"),
    ],
)
def test_the_default_directory_depends_on_the_environment(environ: dict[str, str], expected: str) -> None:
    assert config({}, None, environ).data == Path(expected)
    assert config({"data": "/flag"}, None, environ).data == Path("/flag")
    assert config({}, None, environ | {"TURNOUT_DATA": "/variable"}).data == Path("/variable")


def test_a_store_at_the_earlier_default_is_not_forgotten(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    earlier, now = tmp_path / "turnout-data", tmp_path / "state" / "turnout"
    assert default_data(environ, tmp_path) == now
    create(earlier)
    with pytest.raises(Error, match=f"Start with --data {earlier}, or move that directory to {now}".replace("Start", "start")):
        default_data(environ, tmp_path)
    create(now)
    assert default_data(environ, tmp_path) == now


def test_a_flag_overrides_the_environment_and_both_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "turnout.yaml"
    file.write_text("data: /file\napi: 127.0.0.1:1\nxds: 127.0.0.1:2\nlog_format: json\n")
    environ = {"TURNOUT_API": "127.0.0.1:3", "TURNOUT_XDS": "127.0.0.1:4", "TURNOUT_GRACE": "1.5", "TURNOUT_LOG_LEVEL": ""}
    created = config({"xds": "127.0.0.1:5", "api": None}, str(file), environ)
    assert created == Config(
        data=Path("/file"),
        api=Address("127.0.0.1", 3),
        xds=Address("127.0.0.1", 5),
        log_format="json",
        log_level="info",
        grace=1.5,
    )


@pytest.mark.parametrize(
    ("flags", "text", "environ", "expected"),
    [
        ({"api": "nowhere"}, "", {}, "--api: 'nowhere' is not HOST:PORT"),
        ({}, "", {"TURNOUT_XDS": "a:b"}, "TURNOUT_XDS: 'a:b' is not HOST:PORT"),
        ({}, "\napi: x\n", {}, "turnout.yaml:2: api: 'x' is not HOST:PORT"),
        ({"metrics": "on"}, "", {}, "--metrics: 'on' is not HOST:PORT"),
        ({}, "metrics: :1\n", {}, "turnout.yaml:1: metrics: 0.0.0.0:1 can be reached from other machines"),
        ({"log_format": "xml"}, "", {}, "--log-format: 'xml' is not one of: console, json"),
        ({"workers": "many"}, "", {}, "--workers: 'many' is not a whole number, nor auto"),
        ({}, "\nworkers: 1000\n", {}, "turnout.yaml:2: workers: "),
        ({}, "", {"TURNOUT_GRACE": "soon"}, "TURNOUT_GRACE: 'soon' is not a number of seconds"),
        ({}, "", {"TURNOUT_GRACE": "nan"}, "TURNOUT_GRACE: "),
        ({}, "grace: 1000\n", {}, "turnout.yaml:1: grace: 1,000 s is out of range"),
        ({"max_stream_age": "-3"}, "", {}, "--max-stream-age: -3 s is out of range: 1 s to 2,592,000 s, or 0 for never"),
        ({}, "log-format: json\n", {}, "turnout.yaml:1: unknown setting 'log-format'; did you mean 'log_format'?"),
        ({}, "xds_shell: grpc\n", {}, "turnout.yaml:1: xds_shell is now called xds_transport"),
        ({}, "", {"TURNOUT_XDS_SHELL": "grpc"}, "TURNOUT_XDS_SHELL: is now called TURNOUT_XDS_TRANSPORT"),
        ({}, "zzz: 1\n", {}, "unknown setting 'zzz'; there are: data, api"),
        ({}, "data: [a]\n", {}, "turnout.yaml:1: data: must be a single value"),
        ({}, "- a\n", {}, "turnout.yaml:1: must be `name: value` lines"),
        ({}, "a: [\n", {}, "is not YAML"),
        (
            {"api": "127.0.0.1:1", "xds": "127.0.0.1:1"},
            "",
            {},
            "--xds: 127.0.0.1:1 is also the address of the operator API: use another port",
        ),
    ],
)
def test_an_error_names_the_source_of_a_wrong_setting(
    tmp_path: Path, flags: dict[str, str | None], text: str, environ: dict[str, str], expected: str
) -> None:
    file = tmp_path / "turnout.yaml"
    file.write_text(text)
    with pytest.raises(Error) as caught:
        config(flags, str(file), environ)
    assert expected in caught.value.message


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"none\.yaml: can't be read"):
        config({}, str(tmp_path / "none.yaml"), {})


@pytest.mark.parametrize("text", ["off", "[::1]:9"])
def test_metrics_may_be_off(tmp_path: Path, text: str) -> None:
    metrics = None if text == "off" else Address("::1", 9)
    assert config({"metrics": text}, None, {}).metrics == metrics
    assert config({}, None, {"TURNOUT_METRICS": text}).metrics == metrics
    file = tmp_path / "turnout.yaml"
    file.write_text(f'metrics: "{text}"\n')
    assert config({}, str(file), {}).metrics == metrics


def test_probes_may_be_off(tmp_path: Path) -> None:
    file = tmp_path / "turnout.yaml"
    file.write_text("probe: off\n")
    assert [config({}, str(file), {}).probe, config({"probe": "on"}, str(file), {}).probe] == [False, True]
    with pytest.raises(Error, match="TURNOUT_PROBE: 'maybe' is neither on nor off"):
        config({}, None, {"TURNOUT_PROBE": "maybe"})


def test_auto_workers_means_one_a_core() -> None:
    assert config({"workers": "auto"}, None, {}).workers >= 1
    assert config({}, None, {"TURNOUT_WORKERS": "3"}).workers == 3


def test_the_sealing_key_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_SECRET_KEY", "the key")
    created = config({"data": "/data"}, None)
    assert (created.secret_key, "TURNOUT_SECRET_KEY" in os.environ) == ("the key", False)
    assert "the key" not in repr(created)


def test_the_sealing_key_has_one_source() -> None:
    environ = {"TURNOUT_SECRET_KEY": "the key", "TURNOUT_SECRET_KEY_COMMAND": "kms get"}
    with pytest.raises(Error, match="TURNOUT_SECRET_KEY_COMMAND: the sealing key has another source already"):
        config({}, None, environ)
