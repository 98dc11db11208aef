"""Callers by their credentials: tokens of the file, access tokens, certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controlplane.access.caller import Caller, Credential
from controlplane.access.tokens import hashed
from controlplane.api.gate import AccessGate
from controlplane.errors import Code, Error
from tests import pki

TOKEN = "turnout_" + "a" * 43
OLD = "turnout_" + "b" * 43
NOW = 1_700_000_000.0
ACCESS = "rules:\n- {who: ['token:ci'], role: viewer}\n"
OIDC = "oidc: {issuer: https://login.test, audience: turnout}\n"


class Context:
    """The metadata and the certificate of a call."""

    def __init__(self, *authorization: str, certificate: str = "") -> None:
        self._metadata = [("authorization", value) for value in authorization]
        self._auth = {"x509_pem_cert": [certificate.encode()]} if certificate else {}

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self._metadata

    def auth_context(self) -> dict[str, Any]:
        return self._auth


class Everybody:
    """A provider whose tokens are names."""

    def __init__(self, settings: object) -> None:
        pass

    async def caller(self, token: str) -> Caller:
        return Caller(Credential.USER, token)


def gate(tmp_path: Path, access: str = ACCESS, now: float = NOW) -> AccessGate:
    (tmp_path / "access.yaml").write_text(access)
    entries = "".join(
        f"- {{name: {name}, sha256: {hashed(token)}{more}}}\n"
        for name, token, more in (("ci", TOKEN, ""), ("old", OLD, ", expires: 2020-01-01T00:00:00Z"))
    )
    (tmp_path / "tokens.yaml").write_text(f"tokens:\n{entries}")
    return AccessGate(tmp_path / "access.yaml", tmp_path / "tokens.yaml", Everybody, lambda: now)


async def refusal(gate: AccessGate, context: Context) -> Error:
    with pytest.raises(Error) as caught:
        await gate.caller(context, "")
    assert TOKEN not in caught.value.message
    return caught.value


async def test_a_token_of_the_file(tmp_path: Path) -> None:
    assert await gate(tmp_path).caller(Context(f"Bearer {TOKEN}"), "10.0.0.1:5") == Caller(
        Credential.TOKEN, "ci", address="10.0.0.1:5"
    )


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (Context(), "NO_CREDENTIAL"),
        (Context("Bearer turnout_" + "c" * 43), "UNKNOWN_TOKEN"),
        (Context(f"Bearer {OLD}"), "CREDENTIAL_EXPIRED"),
        (Context(f"Basic {TOKEN}"), "BAD_CREDENTIAL"),
        (Context(TOKEN), "BAD_CREDENTIAL"),
        (Context("Bearer "), "BAD_CREDENTIAL"),
        (Context("Bearer " + "x" * 10_000), "BAD_CREDENTIAL"),
        (Context(f"Bearer {TOKEN}", f"Bearer {TOKEN}"), "BAD_CREDENTIAL"),
        (Context("Bearer anna"), "UNKNOWN_TOKEN"),  # no provider
        (Context(certificate="no certificate"), "BAD_CREDENTIAL"),
        (Context(certificate=pki.authority().certificate.replace("MII", "MIX")), "BAD_CREDENTIAL"),
    ],
)
async def test_other_credentials_are_refused(tmp_path: Path, context: Context, reason: str) -> None:
    error = await refusal(gate(tmp_path), context)
    assert (error.code, error.reason) == (Code.UNAUTHENTICATED, reason)


async def test_an_access_token_of_the_provider(tmp_path: Path) -> None:
    caller = await gate(tmp_path, OIDC + ACCESS).caller(Context("Bearer anna"), "")
    assert caller.identity == "user:anna"


async def test_a_certificate_names_its_caller_until_it_expires(tmp_path: Path) -> None:
    certificate = pki.authority().pair("spiffe://td/ns/ml/sa/ci").certificate
    context = Context(certificate=certificate)
    caller = await gate(tmp_path).caller(context, "")
    assert caller.identity == "certificate:spiffe://td/ns/ml/sa/ci"
    assert caller.expires
    # A connection may outlive the certificate.
    assert (await refusal(gate(tmp_path, now=caller.expires + 1), context)).reason == "CREDENTIAL_EXPIRED"
    # The token says who calls through a connection that others share.
    both = await gate(tmp_path).caller(Context(f"Bearer {TOKEN}", certificate=certificate), "")
    assert both.identity == "token:ci"


async def test_a_withdrawn_token_is_refused_and_a_broken_file_withdraws_nothing(tmp_path: Path) -> None:
    mine = gate(tmp_path)
    (tmp_path / "tokens.yaml").write_text("tokens: [")
    assert not mine.files.refresh()
    assert (await mine.caller(Context(f"Bearer {TOKEN}"), "")).name == "ci"
    (tmp_path / "tokens.yaml").write_text("tokens: []")
    assert mine.files.refresh()
    assert (await refusal(mine, Context(f"Bearer {TOKEN}"))).reason == "UNKNOWN_TOKEN"


def test_a_broken_access_file_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"access.yaml:1: rules\[0\]: must be a mapping"):
        gate(tmp_path, "rules: [x]")
