"""Access tokens: each check refuses what it is for. `test_dex.py` has a real provider."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import threading
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import pytest

from controlplane.access.caller import Caller, Credential
from controlplane.access.document import OidcSettings
from controlplane.api.oidc import FRESH, PAUSE, UNMARKED, USABLE, OidcVerifier
from controlplane.errors import Code, Error
from tests.fakes.provider import AUDIENCE, ISSUER, Provider

SETTINGS = OidcSettings(ISSUER, AUDIENCE)


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def verifier(provider: Provider) -> OidcVerifier:
    return made(provider)


def made(provider: Provider, **settings: Any) -> OidcVerifier:
    return OidcVerifier(replace(SETTINGS, **settings), provider.fetch, lambda: provider.now)


async def refusal(verifier: OidcVerifier, token: str) -> str:
    with pytest.raises(Error) as caught:
        await verifier.caller(token)
    assert caught.value.code is Code.UNAUTHENTICATED
    assert token not in caught.value.message
    return caught.value.message


def raw(header: dict[str, Any], claims: dict[str, Any], sign: str | None = None) -> str:
    """Return a token that is made by hand, signed with HMAC or not at all."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = hmac.new(sign.encode(), b".".join(parts), sha256).digest() if sign else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


async def test_a_valid_token(provider: Provider, verifier: OidcVerifier) -> None:
    expected = Caller(Credential.USER, "anna", frozenset({"ml-team"}), provider.now + 330)
    assert await verifier.caller(provider.token()) == expected
    provider.rotate("rsa", "RSA", keep=True)
    provider.now += PAUSE
    assert (await verifier.caller(provider.token())).name == "anna"
    assert (await verifier.caller(provider.token(algorithm="PS256"))).name == "anna"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"typ": "JWT"}, "its typ is 'jwt', and access tokens of this provider have typ 'at+jwt': it may be an ID token"),
        ({"typ": None}, "its typ is ''"),
        ({"typ": "logout+jwt"}, "its typ is 'logout+jwt'"),
        ({"aud": "other"}, "it is for another audience than 'turnout'"),
        ({"aud": None}, "it has no claim aud"),
        ({"iss": "https://evil.test"}, "it is of another issuer than https://login.test"),
        ({"exp": None}, "it has no claim exp"),
        ({"exp": "soon"}, "its claim exp is not a time"),
        ({"sub": None}, "it has no claim sub"),
        ({"sub": "an\nna"}, "its claim sub, the user's name, is missing, or is not 200 printable characters"),
        ({"sub": "x" * 300}, "its claim sub, the user's name, is missing, or is not 200 printable characters"),
        ({"groups": [1]}, "its claim groups is not a list of 500 texts at most"),
        ({"iat": 1_700_000_031.0}, "it is from the future"),
        ({"nbf": 1_700_000_031.0}, "it is from the future"),
        ({"token_use": "id"}, "it is no access token"),
        ({"kid": "unknown"}, "it is signed with a key that the provider does not publish"),
    ],
)
async def test_refused_tokens(provider: Provider, verifier: OidcVerifier, changed: dict[str, Any], problem: str) -> None:
    assert problem in await refusal(verifier, provider.token(**changed))


@pytest.mark.parametrize(("seconds", "valid"), [(-29, True), (-31, False)])
async def test_expired_within_the_clock_skew(provider: Provider, verifier: OidcVerifier, seconds: int, valid: bool) -> None:
    token = provider.token(exp=provider.now + seconds)
    if valid:
        assert await verifier.caller(token)
    else:
        assert "has expired: run `turnout login` again" in await refusal(verifier, token)


async def test_forged_signatures(provider: Provider, verifier: OidcVerifier) -> None:
    claims = provider.claims()
    assert "algorithm 'none'" in await refusal(verifier, raw({"alg": "none", "typ": "at+jwt", "kid": "k1"}, claims))
    # The classic: HMAC, with the public key as the secret.
    forged = raw({"alg": "HS256", "typ": "at+jwt", "kid": "k1"}, claims, provider.public_pem())
    assert "algorithm 'HS256'" in await refusal(verifier, forged)
    for algorithm in ("ES256", "RS256", "EdDSA"):
        mislabelled = raw({"alg": algorithm, "typ": "at+jwt", "kid": "k1"}, claims, provider.public_pem())
        assert "token is refused" in await refusal(verifier, mislabelled)
    other = Provider()
    assert "its signature is wrong" in await refusal(verifier, other.token())
    header, body, signature = provider.token().split(".")
    changed = base64.urlsafe_b64encode(json.dumps(claims | {"sub": "root"}).encode()).decode().rstrip("=")
    assert "its signature is wrong" in await refusal(verifier, f"{header}.{changed}.{signature}")
    assert "its signature is wrong" in await refusal(verifier, f"{header}.{body}.")
    # A key in the token itself is nobody's key.
    own = jwt.encode(claims, other.keys["k1"], "ES256", headers={"kid": "own", "typ": "at+jwt", "jwk": other.jwks()[0]})
    assert "key that the provider does not publish" in await refusal(verifier, own)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "a.b.c.d.e", "\u00e9.\u00e9.\u00e9", "." * 5_000])
async def test_texts_that_are_no_tokens(verifier: OidcVerifier, token: str) -> None:
    with pytest.raises(Error) as caught:
        await verifier.caller(token)
    assert caught.value.reason == "BAD_TOKEN"


async def test_a_provider_that_does_not_mark_its_tokens(provider: Provider) -> None:
    unmarked = made(provider, token_type=UNMARKED)
    for typ in (None, "JWT"):
        assert (await unmarked.caller(provider.token(typ=typ))).name == "anna"
    assert "it is no access token" in await refusal(unmarked, provider.token(typ=None, token_use="id"))
    claims = provider.claims() | {"typ": "ID"}
    marked = jwt.encode(claims, provider.keys["k1"], "ES256", headers={"kid": "k1"})
    assert "it is no access token" in await refusal(unmarked, marked)
    assert "its typ is 'logout+jwt'" in await refusal(unmarked, provider.token(typ="logout+jwt"))


async def test_names_and_groups_from_other_claims(provider: Provider) -> None:
    mine = made(provider, name_claim="email", groups_claim="roles")
    token = provider.token(email="a@example.com", email_verified=True, roles="one")
    caller = await mine.caller(token)
    assert (caller.identity, caller.groups) == ("user:a@example.com", frozenset({"one"}))
    unverified = provider.token(email="root@example.com", email_verified=False)
    assert "its e-mail address is not verified" in await refusal(mine, unverified)


async def test_keys_rotate(provider: Provider, verifier: OidcVerifier) -> None:
    old = provider.token()
    await asyncio.gather(*(verifier.caller(old) for _ in range(20)))
    assert len(provider.fetched) == 2  # the discovery document and the keys, once
    provider.rotate("k2")
    # An unknown key is looked up, but tokens with invented keys do not make a request each.
    assert "does not publish" in await refusal(verifier, provider.token())
    provider.now += PAUSE
    assert (await verifier.caller(provider.token())).name == "anna"
    for kid in "abc":
        await refusal(verifier, provider.token(kid=kid))
    assert len(provider.fetched) == 4
    # The old key is withdrawn.
    assert "does not publish" in await refusal(verifier, old)


async def test_a_withdrawn_key_is_refused_after_five_minutes(provider: Provider, verifier: OidcVerifier) -> None:
    token = provider.token(exp=provider.now + 3_000)
    await verifier.caller(token)
    provider.rotate("k2")
    provider.now += FRESH + 1
    assert "does not publish" in await refusal(verifier, token)


async def test_a_provider_that_can_not_be_reached(provider: Provider, verifier: OidcVerifier) -> None:
    provider.down = OSError("connection refused")
    with pytest.raises(Error) as caught:
        await verifier.caller(provider.token())
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "NO_KEYS")
    assert caught.value.message == (
        "the token can't be checked: https://login.test/.well-known/openid-configuration can't be read: connection refused"
    )
    provider.down = None
    provider.now += PAUSE
    token = provider.token(exp=provider.now + 2 * USABLE)
    assert await verifier.caller(token)
    # The known keys stay in use, for an hour.
    provider.down = OSError("connection refused")
    provider.now += USABLE - 1
    assert await verifier.caller(token)
    provider.now += PAUSE
    with pytest.raises(Error, match="connection refused"):
        await verifier.caller(token)


@pytest.mark.parametrize(
    ("discovery", "problem"),
    [
        ({"issuer": "https://other.test"}, "is of the issuer 'https://other.test', not of https://login.test"),
        ({"jwks_uri": "http://login.test/keys"}, "names no https URL of keys"),
        ({"jwks_uri": None}, "names no https URL of keys"),
    ],
)
async def test_a_wrong_discovery_document(provider: Provider, verifier: OidcVerifier, discovery: Any, problem: str) -> None:
    provider.discovery |= discovery
    with pytest.raises(Error) as caught:
        await verifier.caller(provider.token())
    assert (caught.value.code, problem in caught.value.message) == (Code.UNAVAILABLE, True)


async def test_a_provider_that_does_not_answer_delays_no_token_with_a_known_key(provider: Provider) -> None:
    asked, answer = threading.Event(), threading.Event()

    def fetch(url: str) -> bytes:
        if provider.down is not None:
            asked.set()
            answer.wait(10)
        return provider.fetch(url)

    verifier = OidcVerifier(SETTINGS, fetch, lambda: provider.now)
    token = provider.token(exp=provider.now + USABLE)
    await verifier.caller(token)
    provider.down = OSError("timed out")
    provider.now += FRESH + 1
    waiting = asyncio.create_task(verifier.caller(token))
    try:
        await asyncio.to_thread(asked.wait, 10)
        assert (await asyncio.wait_for(verifier.caller(token), 5)).name == "anna"
    finally:
        answer.set()
    assert (await waiting).name == "anna"


def test_authorities_that_can_not_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    for name in ("ca.pem", "none.pem"):
        with pytest.raises(Error, match=rf"access: oidc.ca: .*/{name} can't be used"):
            OidcVerifier(replace(SETTINGS, ca=str(tmp_path / name)))
