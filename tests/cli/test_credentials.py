"""TLS and tokens of the command line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from controlplane.cli.credentials import SYSTEM, Credentials, client_config, config_folder, private_file
from controlplane.errors import Error
from tests import pki
from tests.structure.tree import ROOT

LOCAL = "127.0.0.1:18080"


def test_a_token_goes_to_this_machine_or_over_tls_and_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("turnout_abc\n")
    expected = (("authorization", "Bearer turnout_abc"),)
    plain = Credentials(token_file=str(file))
    for address in (LOCAL, "[::1]:18080", "localhost:18080"):
        assert plain.metadata(address) == expected
    with pytest.raises(Error, match=r"the token would be sent to turnout.example:18080 in the clear: give the server's"):
        plain.metadata("turnout.example:18080")
    assert Credentials(ca=SYSTEM, token_file=str(file)).metadata("turnout.example:18080") == expected
    assert Credentials().metadata("turnout.example:18080") == ()
    assert Credentials(stored_token=lambda: "t").metadata(LOCAL) == (("authorization", "Bearer t"),)


@pytest.mark.parametrize("content", ["", "two words", "x" * 20_000, "a\x00b", "é"])
def test_a_file_without_a_token(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(Error, match="/token: holds no token") as caught:
        Credentials(token_file=str(tmp_path / "token")).metadata(LOCAL)
    assert not content or content not in caught.value.message


def test_files_of_tls_that_do_not_fit(tmp_path: Path) -> None:
    cert, key = pki.pair("ci.test").files(tmp_path, "ci")
    for wrong, problem in (
        (Credentials(cert=cert), "needs both --cert and --key"),
        (Credentials(cert=cert, key=key), "needs --ca, or --ca system"),
        (Credentials(ca="/none.pem"), "/none.pem: can't be read"),
    ):
        with pytest.raises(Error, match=problem):
            wrong.channel(LOCAL, [])
    Credentials(ca=SYSTEM, cert=cert, key=key).channel(LOCAL, []).close()
    Credentials().channel(LOCAL, []).close()


def test_client_yaml(tmp_path: Path) -> None:
    assert client_config(tmp_path) == {}
    (tmp_path / "client.yaml").write_text("api: a:1\nca: ca.pem\ntoken_file: /abs/token\nissuer: https://x\n")
    expected = {"api": "a:1", "ca": str(tmp_path / "ca.pem"), "token_file": "/abs/token", "issuer": "https://x"}
    assert client_config(tmp_path) == expected
    (tmp_path / "client.yaml").write_text("api: a:1\nca: system\n")
    assert client_config(tmp_path)["ca"] == SYSTEM


def test_the_example() -> None:
    assert client_config(ROOT / "examples" / "access")["api"] == "turnout.example.com:18080"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ca: x", "client.yaml:1: needs `api: HOST:PORT`, the server that it is for"),
        ("api: a:1\ntoken: secret", "client.yaml:2: unknown setting 'token'"),
        ("api: a:1\nca: [x]", "client.yaml:2: ca: must be a single value"),
        ("[a]", "client.yaml:1: must be `name: value` lines"),
    ],
)
def test_a_wrong_client_yaml(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "client.yaml").write_text(text)
    with pytest.raises(Error) as caught:
        client_config(tmp_path)
    assert problem in caught.value.message


def test_the_folder() -> None:
    assert config_folder({"XDG_CONFIG_HOME": "/c", "HOME": "/h"}) == Path("/c/turnout")
    assert config_folder({"XDG_CONFIG_HOME": "relative", "HOME": "/h"}) == Path("/h/.config/turnout")


def test_private_files_are_for_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "token"
    for text in ("one", "two"):
        private_file(path, text)
        assert path.read_text() == text
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["token"]
    (tmp_path / "file").write_text("")
    with pytest.raises(Error, match="can't be written"):
        private_file(tmp_path / "file" / "token", "x")
