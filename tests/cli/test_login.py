"""`turnout login`: the device flow, against a provider that a test plays. `tests/cli/test_dex.py` has a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.cli.exits import Exit
from controlplane.cli.login import device_flow
from controlplane.cli.login_tokens import token_path
from controlplane.errors import Error
from tests.cli.conftest import NOWHERE, Run
from tests.cli.test_login_tokens import ProviderServer, provider  # noqa: F401 -- a fixture

CODE = {
    "device_code": "d",
    "user_code": "ABCD-EFGH",
    "verification_uri": "https://login/device",
    "interval": 2,
    "expires_in": 60,
}
TOKEN = {"access_token": "a", "expires_in": 300, "refresh_token": "r"}
PENDING = (400, {"error": "authorization_pending"})


def document(provider: ProviderServer) -> dict[str, Any]:  # noqa: F811
    return {
        "issuer": provider.url,
        "device_authorization_endpoint": f"{provider.url}/device",
        "token_endpoint": f"{provider.url}/token",
    }


def flow(provider: ProviderServer, *answers: tuple[int, Any]) -> tuple[Any, list[str], list[float]]:  # noqa: F811
    """Return the token, the lines that were shown, and the pauses. Time passes in pauses only."""
    provider.answers |= {"/device": [(200, CODE)], "/token": list(answers)}
    shown: list[str] = []
    pauses: list[float] = []
    token = device_flow(document(provider), "cli", "openid", "", shown.append, pauses.append, lambda: 1_000.0 + sum(pauses))
    return token, shown, pauses


def test_the_code_is_shown_and_the_token_comes(provider: ProviderServer) -> None:  # noqa: F811
    token, shown, pauses = flow(provider, PENDING, (400, {"error": "slow_down"}), PENDING, (200, TOKEN))
    assert (token.access_token, token.refresh_token, token.expires_at) == ("a", "r", 1_316.0 + 2)
    assert shown == ["open https://login/device and check that it shows the code ABCD-EFGH"]
    assert pauses == [2.0, 2.0, 7.0, 7.0]
    assert provider.forms[0] == {"client_id": "cli", "scope": "openid"}
    assert provider.forms[1]["grant_type"] == "urn:ietf:params:oauth:grant-type:device_code"


def test_a_login_that_is_refused_or_forgotten(provider: ProviderServer) -> None:  # noqa: F811
    with pytest.raises(Error, match="the provider refuses the login: access_denied"):
        flow(provider, PENDING, (400, {"error": "access_denied"}))
    with pytest.raises(Error, match="nobody entered the code in time"):
        flow(provider, PENDING)
    with pytest.raises(Error, match="has no device flow"):
        device_flow({"token_endpoint": "x"}, "cli", "openid", "", print)
    provider.answers["/device"] = [(401, {"error": "invalid_client", "error_description": "who is that"})]
    with pytest.raises(Error, match="the provider refuses the login: who is that"):
        device_flow(document(provider), "cli", "openid", "", print)


def test_the_command_stores_the_token_for_its_server(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    provider: ProviderServer,  # noqa: F811
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    provider.answers = {
        "/.well-known/openid-configuration": [(200, document(provider))],
        "/device": [(200, CODE | {"interval": 0.01})],
        "/token": [PENDING, (200, TOKEN)],
    }
    result = run("login", "--api", NOWHERE, "--issuer", provider.url, "--client-id", "cli")
    assert result.code == 0, result.err
    path = token_path(tmp_path / "turnout", NOWHERE)
    assert json.loads(path.read_text())["access_token"] == "a"
    assert "ABCD-EFGH" in result.err
    assert f"the token for {NOWHERE} is in" in result.err
    assert provider.forms[0]["scope"] == "openid email groups offline_access"


def test_a_provider_is_required(run: Run) -> None:
    result = run("login", "--client-id", "cli")
    assert (result.code, "--issuer" in result.err) == (Exit.USAGE, True)
