"""Stored tokens, and their renewal at a provider."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from controlplane.cli.login_tokens import StoredToken, discover, from_answer, post, save, stored_token, token_path
from controlplane.errors import Code, Error


class ProviderServer(HTTPServer):
    """Answers with `answers` by path: (status, JSON), one after the other; the last one stays. Records forms in `forms`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[tuple[int, Any]]] = {}
        self.forms: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        answers = server.answers.get(self.path, [(404, {"error": "none"})])
        status, content = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

    def do_POST(self) -> None:
        server: Any = self.server
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        server.forms.append({key: values[0] for key, values in form.items()})
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    server = ProviderServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def token(provider: ProviderServer, **changed: Any) -> StoredToken:
    fields = {
        "access_token": "first",
        "expires_at": 1_000.0,
        "refresh_token": "r1",
        "token_endpoint": f"{provider.url}/token",
        "client_id": "cli",
        "issuer_ca": "",
    }
    return StoredToken(**{**fields, **changed})


ADDRESS = "turnout.example:18080"


def test_a_token_is_stored_for_one_server_and_its_owner(tmp_path: Path, provider: ProviderServer) -> None:
    path = token_path(tmp_path, ADDRESS)
    save(path, token(provider))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stored_token(tmp_path, ADDRESS, lambda: 900.0) == "first"
    assert stored_token(tmp_path, "other:18080", lambda: 900.0) == ""
    assert token_path(tmp_path, "[::1]:1/../x").parent == path.parent


def test_a_token_is_renewed_before_it_expires(tmp_path: Path, provider: ProviderServer) -> None:
    path = token_path(tmp_path, ADDRESS)
    save(path, token(provider))
    provider.answers["/token"] = [(200, {"access_token": "second", "expires_in": 600, "refresh_token": "r2"})]
    assert stored_token(tmp_path, ADDRESS, lambda: 980.0) == "second"
    assert provider.forms == [{"grant_type": "refresh_token", "refresh_token": "r1", "client_id": "cli"}]
    assert stored_token(tmp_path, ADDRESS, lambda: 990.0) == "second"
    assert json.loads(path.read_text())["refresh_token"] == "r2"
    # The refresh token may stay the same.
    provider.answers["/token"] = [(200, {"access_token": "third", "expires_in": 600})]
    assert stored_token(tmp_path, ADDRESS, lambda: 1_600.0) == "third"
    assert json.loads(path.read_text())["refresh_token"] == "r2"


def test_a_login_that_has_ended(tmp_path: Path, provider: ProviderServer) -> None:
    path = token_path(tmp_path, ADDRESS)
    save(path, token(provider))
    provider.answers["/token"] = [(400, {"error": "invalid_grant", "error_description": "revoked\x1b[2J"})]
    with pytest.raises(Error) as caught:
        stored_token(tmp_path, ADDRESS, lambda: 1_000.0)
    assert (caught.value.code, caught.value.reason) == (Code.UNAUTHENTICATED, "LOGIN_EXPIRED")
    assert caught.value.message == "the login has ended (revoked\\u001b[2J): run `turnout login` again"
    save(path, token(provider, refresh_token=""))
    with pytest.raises(Error, match="the login has expired: run `turnout login` again"):
        stored_token(tmp_path, ADDRESS, lambda: 1_000.0)
    path.write_text("{}")
    with pytest.raises(Error, match="is damaged: run `turnout login` again"):
        stored_token(tmp_path, ADDRESS)


def test_answers_that_are_none(provider: ProviderServer) -> None:
    provider.answers["/html"] = [(200, b"<html>")]
    with pytest.raises(Error, match="/html answers 200 without a JSON object"):
        post(f"{provider.url}/html", {}, "")
    with pytest.raises(Error, match="is no https URL"):
        post("http://login.example/token", {}, "")
    with pytest.raises(Error, match="is no https URL"):
        post("http://127.0.0.1.evil.example/token", {}, "")
    with pytest.raises(Error, match="file:///etc/passwd is no https URL"):
        post("file:///etc/passwd", {}, "")
    with pytest.raises(Error, match="can't be read"):
        post("http://127.0.0.1:1/token", {}, "")
    with pytest.raises(Error, match="has no access_token"):
        from_answer({}, token(provider), 0.0)
    provider.answers["/.well-known/openid-configuration"] = [(200, {"issuer": "https://other"})]
    with pytest.raises(Error, match="is of issuer 'https://other'"):
        discover(provider.url, "")
