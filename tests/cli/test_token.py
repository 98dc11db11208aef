"""`turnout token new`, and a server that lets its tokens in."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.access.tokens import hashed, is_token, parse_tokens
from controlplane.cli.exits import Exit
from tests import pki
from tests.cli.conftest import Run, Server, write_file

RULES = """
rules:
- {who: ["token:root"], role: admin}
- {who: ["token:ci"], role: switcher, on: [models/iris]}
"""


def test_a_token_is_in_its_file_and_only_its_hash_in_the_servers(run: Run, tmp_path: Path) -> None:
    tokens, out = tmp_path / "tokens.yaml", tmp_path / "ci.token"
    result = run("token", "new", "ci", "--tokens", tokens, "--out", out)
    assert result.code == 0, result.err
    token = out.read_text().strip()
    assert is_token(token)
    assert token not in tokens.read_text() + result.out + result.err
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tokens, out)] == [0o600, 0o600]
    entry = parse_tokens(tokens.read_text(), "")[hashed(token)]
    assert (entry.name, bool(entry.expires)) == ("ci", True)
    # A second one, which never expires.
    assert run("token", "new", "b", "--tokens", tokens, "--out", tmp_path / "b", "--days", "0").code == 0
    assert [t.name for t in parse_tokens(tokens.read_text(), "").values()] == ["ci", "b"]


@pytest.mark.parametrize(
    ("name", "content", "code", "problem"),
    [
        ("a b", None, Exit.USAGE, "'a b' is not letters, digits"),
        ("ci", f"tokens:\n- {{name: ci, sha256: {'0' * 64}}}\n", Exit.CONFLICT, "has a token of ci already"),
        ("ci", "tokens: [", Exit.INVALID, "tokens.yaml:1: is not YAML"),
        ("ci", f'{{"tokens": [{{"name": "x", "sha256": "{"0" * 64}"}}]}}', Exit.INVALID, "is not YAML"),
    ],
)
def test_what_can_not_be_done(run: Run, tmp_path: Path, name: str, content: str | None, code: Exit, problem: str) -> None:
    tokens, out = tmp_path / "tokens.yaml", tmp_path / "token"
    if content is not None:
        tokens.write_text(content)
    result = run("token", "new", name, "--tokens", tokens, "--out", out)
    assert (result.code, problem in result.err) == (code, True), result.err
    assert not out.exists()
    assert content is None or tokens.read_text() == content


def test_a_file_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    out = write_file(tmp_path, "precious")
    result = run("token", "new", "ci", "--tokens", tmp_path / "tokens.yaml", "--out", out)
    assert (result.code, "exists already" in result.err, out.read_text()) == (Exit.INVALID, True, "precious")


@pytest.fixture
def secured(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with TLS and two tokens; the commands have the CA."""
    tokens = tmp_path / "tokens.yaml"
    for name in ("root", "ci"):
        assert run("token", "new", name, "--tokens", tokens, "--out", tmp_path / f"{name}.token").code == 0
    cert, key = pki.authority().pair("127.0.0.1").files(tmp_path, "api")
    settings: Any = {
        "access": write_file(tmp_path, RULES, "access.yaml"),
        "api_tokens": tokens,
        "api_tls_cert": Path(cert),
        "api_tls_key": Path(key),
    }
    server = Server(tmp_path / "data", **settings)
    monkeypatch.setenv("TURNOUT_API", server.api)
    monkeypatch.setenv("TURNOUT_CA", str(write_file(tmp_path, pki.authority().certificate, "ca.pem")))
    yield server
    server.stop()


def test_commands_with_a_token_over_tls(
    run: Run, tmp_path: Path, minimal: Path, secured: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("get", "models")
    assert (result.code, "the call has no credential: send a token (TURNOUT_TOKEN_FILE" in result.err) == (Exit.CONFLICT, True)
    root, ci = (("--token-file", str(tmp_path / f"{name}.token")) for name in ("root", "ci"))
    assert run(*root, "apply", "-f", minimal).code == 0
    result = run(*ci, "delete", "models/iris", "--yes")
    assert (result.code, "needs editor on models/iris; token:ci is switcher on models/iris" in result.err) == (
        Exit.CONFLICT,
        True,
    ), result.err
    assert run(*ci, "switch", "iris", "--to", "green", "--no-wait").code == 0
    # The author that a caller gives is a note, and changes nothing.
    assert "token:ci" in run(*ci, "history").out
    assert "ada@tests" not in run(*ci, "history").out
    # An own change is undone without a question, the change of another caller is not.
    assert run(*ci, "undo", "iris", "--no-wait").code == 0
    assert run(*root, "switch", "iris", "--to", "green", "--no-wait").code == 0
    result = run(*ci, "undo", "iris", "--no-wait")
    assert (result.code, "by token:root" in result.err) == (Exit.USAGE, True), result.err
    # client.yaml does the same, for its server alone.
    folder = tmp_path / "config" / "turnout"
    folder.mkdir(parents=True)
    (folder / "client.yaml").write_text(f"api: {secured.api}\nca: {tmp_path}/ca.pem\ntoken_file: {tmp_path}/ci.token\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("TURNOUT_CA")
    monkeypatch.delenv("TURNOUT_API")
    assert run("get", "models").code == 0
    assert run("--api", secured.api, "get", "models").code == 0
    other = secured.api.replace("127.0.0.1", "localhost")
    assert "expects TLS" in run("--api", other, "get", "models").err


def test_a_server_of_another_authority_is_refused(run: Run, tmp_path: Path, secured: Server) -> None:
    other = write_file(tmp_path, pki.Authority("other").certificate, "other.pem")
    result = run("--ca", other, "--token-file", tmp_path / "ci.token", "get", "models")
    assert (result.code, "no authority of --ca (TURNOUT_CA) has signed" in result.err) == (Exit.UNAVAILABLE, True), result.err
    result = run("--api", secured.api.replace("127.0.0.1", "localhost"), "get", "models")
    assert (result.code, "the server's certificate is for another name" in result.err) == (Exit.UNAVAILABLE, True), result.err


def test_a_server_that_asks_for_a_certificate(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = pki.authority().pair("127.0.0.1").files(tmp_path, "api")
    ca = write_file(tmp_path, pki.authority().certificate, "ca.pem")
    rules = "rules:\n- {who: ['certificate:spiffe://td/ns/ml/*'], role: viewer}\n"
    settings: Any = {"access": write_file(tmp_path, rules, "access.yaml"), "api_client_ca": ca}
    server = Server(tmp_path / "data", **settings, api_tls_cert=Path(cert), api_tls_key=Path(key))
    try:
        monkeypatch.setenv("TURNOUT_API", server.api)
        monkeypatch.setenv("TURNOUT_CA", str(ca))
        result = run("get", "models")
        text = "the server asks for a client certificate that its authorities have signed: give --cert and --key"
        assert (result.code, text in result.err) == (Exit.UNAVAILABLE, True), result.err
        mine, its_key = pki.authority().pair("spiffe://td/ns/ml/sa/ci").files(tmp_path, "ci")
        assert run("--cert", mine, "--key", its_key, "get", "models").code == 0
        other, its_key = pki.Authority("other").pair("spiffe://td/ns/ml/sa/ci").files(tmp_path, "other")
        result = run("--cert", other, "--key", its_key, "get", "models")
        assert (result.code, text in result.err) == (Exit.UNAVAILABLE, True), result.err
    finally:
        server.stop()
