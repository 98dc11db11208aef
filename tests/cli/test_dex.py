"""A real OpenID provider, dex: code flow, device flow with `turnout login`, refresh, and rotation of keys."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import jwt
import pytest

from controlplane.cli.exits import Exit
from controlplane.cli.login_tokens import token_path
from controlplane.demo.ports import free_port
from tests import tools
from tests.cli.conftest import Run, Server, write_file
from tests.structure.tree import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# Nothing listens there: a test reads the code from the address.
CALLBACK = "http://127.0.0.1:1/callback"
SCOPE = "openid email groups offline_access audience:server:client_id:turnout"
KEYS_ROTATE = 10  # seconds

# The user of dex's connector for tests is kilgore@kilgore.trout, in the group `authors`.
RULES = """
rules:
- {who: ["group:authors"], role: viewer}
- {who: ["user:kilgore@kilgore.trout"], role: switcher, on: [models/iris]}
- {who: ["token:root"], role: admin}
"""


class Dex:
    """A running provider."""

    def __init__(self, folder: Path) -> None:
        program = tools.go_tool(
            ROOT / "tests" / "cli" / "dex",
            "github.com/dexidp/dex/cmd/dex",
            ROOT / "build" / "tools" / "dex",
            1000,
            CGO_ENABLED="0",
        )
        port = free_port()
        self.issuer = f"http://127.0.0.1:{port}/dex"
        config = {
            "issuer": self.issuer,
            "storage": {"type": "memory"},
            "web": {"http": f"127.0.0.1:{port}"},
            "oauth2": {"skipApprovalScreen": True},
            "expiry": {
                "signingKeys": f"{KEYS_ROTATE}s",
                "idTokens": "60s",
                # With rotation, dex asks its storage within a transaction of its storage, and the one in memory hangs.
                "refreshTokens": {"disableRotation": True, "reuseInterval": "1h"},
            },
            "connectors": [{"type": "mockCallback", "id": "mock", "name": "Mock"}],
            "staticClients": [
                {"id": "cli", "name": "cli", "public": True, "redirectURIs": [CALLBACK, "/dex/device/callback"]},
                {"id": "turnout", "name": "t", "secret": "x", "redirectURIs": [CALLBACK], "trustedPeers": ["cli"]},
            ],
        }
        file = write_file(folder, json.dumps(config), "dex.yaml")
        self._log = (folder / "dex.log").open("wb")
        self._process = subprocess.Popen([program, "serve", str(file)], stdout=self._log, stderr=self._log)
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self.get(f"{self.issuer}/.well-known/openid-configuration")
                return
            except OSError:
                assert time.monotonic() < deadline
                assert self._process.poll() is None
                time.sleep(0.05)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    @staticmethod
    def get(url: str) -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def log_in(self, url: str, form: dict[str, str] | None = None) -> tuple[str, str]:
        """Open a page as a browser does, or send its form. Return the last address and the last page."""
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()), _Redirects())
        data = urllib.parse.urlencode(form).encode() if form else None
        with browser.open(url, data, timeout=10) as answer:
            return answer.headers.get("location") or answer.url, answer.read().decode()

    def code_flow(self) -> dict[str, Any]:
        """Return the tokens of a login with a code and PKCE."""
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "client_id": "cli",
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "scope": SCOPE,
            "state": "s",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        url, _ = self.log_in(f"{self.issuer}/auth?{urllib.parse.urlencode(query)}")
        code = urllib.parse.parse_qs(urllib.parse.urlparse(url).query)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "client_id": "cli"}
        data = urllib.parse.urlencode(form | {"code_verifier": verifier}).encode()
        with urllib.request.urlopen(f"{self.issuer}/token", data, timeout=10) as answer:
            tokens: dict[str, Any] = json.loads(answer.read())
        return tokens


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not to the client's own address."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        return None if newurl.startswith(CALLBACK) else super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        return fp if headers["location"].startswith(CALLBACK) else super().http_error_302(req, fp, code, msg, headers)

    http_error_303 = http_error_302


@pytest.fixture(scope="module")
def dex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dex]:
    dex = Dex(tmp_path_factory.mktemp("dex"))
    yield dex
    dex.stop()


def serving(run: Run, folder: Path, dex: Dex, **oidc: str) -> Server:
    """Start a server that accepts dex's tokens."""
    folder.mkdir()
    settings = {"issuer": dex.issuer, "audience": "turnout", "name_claim": "email", **oidc}
    tokens = folder / "tokens.yaml"
    assert run("token", "new", "root", "--tokens", tokens, "--out", folder / "root.token").code == 0
    more: Any = {"access": write_file(folder, f"oidc: {json.dumps(settings)}\n{RULES}", "access.yaml"), "api_tokens": tokens}
    return Server(folder / "data", **more)


@pytest.fixture
def server(run: Run, tmp_path: Path, minimal: Path, dex: Dex, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = serving(run, tmp_path / "server", dex, token_type="unmarked")
    monkeypatch.setenv("TURNOUT_API", server.api)
    assert run("--token-file", tmp_path / "server" / "root.token", "apply", "-f", minimal).code == 0
    yield server
    server.stop()


def with_token(run: Run, folder: Path, token: str, *command: str) -> tuple[int, str]:
    result = run("--token-file", write_file(folder, token, "token"), *command)
    return result.code, result.err


def test_tokens_of_the_code_flow_by_kind_audience_and_signature(run: Run, tmp_path: Path, dex: Dex, server: Server) -> None:
    tokens = dex.code_flow()
    assert with_token(run, tmp_path, tokens["access_token"], "get", "models")[0] == 0
    code, text = with_token(run, tmp_path, tokens["access_token"], "delete", "models/iris", "--yes")
    assert code == Exit.CONFLICT
    assert "needs editor on models/iris; user:kilgore@kilgore.trout is viewer, switcher on models/iris" in text, text
    header, body, signature = tokens["access_token"].split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps(claims | {"groups": ["admins"]}).encode()).decode().rstrip("=")
    key = json.loads(dex.get(f"{dex.issuer}/keys"))["keys"][0]
    public = jwt.PyJWK(key).key.public_numbers().n.to_bytes(256, "big")
    none = jwt.encode(claims, "", "none", headers={"kid": key["kid"]})
    hs256 = jwt.encode(claims, public, "HS256", headers={"kid": key["kid"]})
    for token, problem in (
        (f"{header}.{forged}.{signature}", "its signature is wrong"),
        (none, "its algorithm 'none'"),
        (hs256, "its algorithm 'HS256'"),
    ):
        code, text = with_token(run, tmp_path, token, "get", "models")
        assert (code, problem in text) == (Exit.CONFLICT, True), text
    # A server that asks for marked access tokens refuses dex's, and its ID tokens.
    for oidc, kind, problem in (
        ({}, "id_token", "its typ is ''"),
        ({"audience": "another"}, "access_token", "its typ is ''"),
        ({"audience": "another", "token_type": "unmarked"}, "access_token", "it is for another audience than 'another'"),
        ({"issuer": dex.issuer + "/", "token_type": "unmarked"}, "access_token", "is of the issuer"),
    ):
        strict = serving(run, tmp_path / f"strict-{len(list(tmp_path.iterdir()))}", dex, **oidc)
        try:
            result = run("--api", strict.api, "--token-file", write_file(tmp_path, tokens[kind], "token"), "get", "models")
            assert (result.code in (Exit.CONFLICT, Exit.UNAVAILABLE), problem in result.err) == (True, True), result.err
        finally:
            strict.stop()


def test_the_device_flow_refresh_and_rotation_of_keys(
    run: Run, tmp_path: Path, dex: Dex, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    # The user enters the code as soon as it is shown.
    def notice(text: str) -> None:
        if match := re.search(r"http\S+user_code=(\S+)", text):
            form = {"user_code": match[1]}
            entering = threading.Thread(target=dex.log_in, args=(f"{dex.issuer}/device/auth/verify_code", form))
            entering.start()
            entering.join()

    monkeypatch.setattr("controlplane.cli.login.notice", notice)
    result = run("login", "--issuer", dex.issuer, "--client-id", "cli", "--scope", SCOPE)
    assert result.code == 0, result.err
    path = token_path(tmp_path / "turnout", server.api)
    first = json.loads(path.read_text())
    assert first["access_token"] not in result.out + result.err
    assert run("get", "models").code == 0
    kid = jwt.get_unverified_header(first["access_token"])["kid"]
    # The stored token expires; the next command renews it, with a key that the server has not seen yet.
    deadline = time.monotonic() + 10 * KEYS_ROTATE
    while True:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"expires_at": 0}))
        assert run("get", "models").code == 0
        renewed = json.loads(path.read_text())
        assert renewed["access_token"] != first["access_token"]
        if jwt.get_unverified_header(renewed["access_token"])["kid"] != kid:
            break
        assert time.monotonic() < deadline
        time.sleep(1)
    # A token of the key before is valid until it expires.
    assert with_token(run, tmp_path, first["access_token"], "get", "models")[0] == 0
    # A refresh token that the provider does not know ends the login.
    path.write_text(json.dumps(renewed | {"expires_at": 0, "refresh_token": "unknown"}))
    result = run("get", "models")
    assert (result.code, "the login has ended" in result.err) == (Exit.CONFLICT, True), result.err


def test_a_provider_that_is_away(run: Run, tmp_path: Path, dex: Dex) -> None:
    token = dex.code_flow()["access_token"]
    nowhere = f"http://127.0.0.1:{free_port()}/dex"
    away = serving(run, tmp_path / "away", dex, issuer=nowhere, token_type="unmarked")
    try:
        result = run("--api", away.api, "--token-file", write_file(tmp_path, token, "token"), "get", "models")
    finally:
        away.stop()
    text = f"the token can't be checked: {nowhere}/.well-known/openid-configuration can't be read"
    assert (result.code, text in result.err) == (Exit.UNAVAILABLE, True), result.err
