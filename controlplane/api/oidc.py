"""Access tokens of an OpenID provider: JSON Web Tokens, checked with its published keys. PyJWT does the cryptography.

| check | refuses, for instance |
|---|---|
| `alg` is one with a public key | `none`; HS256, for which a public key would be the secret |
| `typ` marks an access token (RFC 9068) | an ID token, which is for the client and not for an API |
| signature by the key with the token's `kid` | a token of somebody else |
| `iss`, `aud`, `exp`, `nbf`, `iat`, with the clock skew | tokens of other issuers, for other APIs, from other times |
| the claim with the user's name | tokens of no user; an e-mail address that is not verified |

The keys are fetched when they are needed first, when a token has an unknown `kid`, and when they are older than five minutes:
a provider replaces its keys. While it can't be reached, the known keys stay in use for an hour.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import structlog

from controlplane.access.caller import Caller, Credential
from controlplane.access.document import OidcSettings
from controlplane.errors import Code, Error, invalid

log = structlog.get_logger("api")

# Algorithms with a key pair. With any other, whoever knows the public key could sign.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

# Types of key pairs.
_KEY_TYPES = ("RSA", "EC", "OKP")

# The value of `token_type` for a provider that does not mark its access tokens.
UNMARKED = "unmarked"

# Age at which keys are fetched again, age at which they are used no more, shortest time between two attempts. Seconds.
FRESH, USABLE, PAUSE = 300.0, 3600.0, 5.0

_TIMEOUT = 5.0
_MAX_BYTES = 1 << 20
_MAX_NAME, _MAX_GROUPS = 200, 500

# Returns the content of a URL. Errors: OSError, ValueError.
Fetch = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class _Keys:
    by_id: Mapping[str, dict[str, Any]]
    time: float


class OidcVerifier:
    """Checks the access tokens of one provider."""

    def __init__(self, settings: OidcSettings, fetch: Fetch | None = None, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._fetch = fetch or _fetch_with(settings.ca)
        self._clock = clock
        self._keys: _Keys | None = None
        self._attempted = float("-inf")
        # Why the keys could not be fetched last; "" if they could.
        self._problem = ""
        self._fetching = asyncio.Lock()

    async def caller(self, token: str) -> Caller:
        """Return the user whose access token it is. Errors: UNAUTHENTICATED; UNAVAILABLE / NO_KEYS."""
        header = self._header(token)
        algorithm = str(header["alg"])
        entry = await self._key(str(header.get("kid") or ""))
        if entry.get("alg", algorithm) != algorithm:
            raise _refused(f"it is signed with {algorithm}, and the key with its kid is for {str(entry['alg'])[:20]}")
        try:
            key = jwt.PyJWK(entry, algorithm)
        except jwt.PyJWTError:
            raise _refused(f"it is signed with {algorithm}, and the key with its kid is for something else") from None
        return self._caller(self._claims(token, key, algorithm))

    def _header(self, token: str) -> dict[str, Any]:
        """Return the header of a token whose algorithm and type are right. Errors: UNAUTHENTICATED."""
        try:
            header: dict[str, Any] = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise _refused("it is not a JSON Web Token") from None
        algorithm, kind = header.get("alg"), str(header.get("typ") or "").lower().removeprefix("application/")
        if algorithm not in ALGORITHMS:
            raise _refused(f"its algorithm '{str(algorithm)[:20]}' is not one with a public key")
        wanted = self._settings.token_type.lower()
        if kind != wanted and not (wanted == UNMARKED and kind in ("", "jwt")):
            marked = f"typ '{wanted}'" if wanted != UNMARKED else "no typ, or 'JWT'"
            raise _refused(
                f"its typ is '{kind[:40]}', and access tokens of this provider have {marked}: it may be an ID token"
            )
        return header

    def _claims(self, token: str, key: jwt.PyJWK, algorithm: str) -> dict[str, Any]:
        """Return the claims of a token that is valid now. Errors: UNAUTHENTICATED."""
        now = self._clock()
        skew = self._settings.clock_skew
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                # The times are checked below, with this object's clock.
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidAudienceError:
            raise _refused(f"it is for another audience than '{self._settings.audience}'") from None
        except jwt.InvalidIssuerError:
            raise _refused(f"it is of another issuer than {self._settings.issuer}") from None
        except jwt.MissingRequiredClaimError as error:
            raise _refused(f"it has no claim {error.claim}") from None
        except jwt.PyJWTError:
            raise _refused("its signature is wrong, or it is no token of this provider") from None
        expires, begins, issued = (_number(claims, name, now) for name in ("exp", "nbf", "iat"))
        if expires + skew <= now:
            raise Error(Code.UNAUTHENTICATED, "CREDENTIAL_EXPIRED", "the token has expired: run `turnout login` again")
        if max(begins, issued) - skew > now:
            raise _refused("it is from the future: check the clocks of this machine and of the provider")
        # Not all providers have a `typ` in the header, and some of them mark their tokens here.
        if str(claims.get("typ", "Bearer")) != "Bearer" or str(claims.get("token_use", "access")) != "access":
            raise _refused("it is no access token: it may be an ID token")
        return claims

    def _caller(self, claims: dict[str, Any]) -> Caller:
        """Return the user in the claims. Errors: UNAUTHENTICATED."""
        claim = self._settings.name_claim
        name = claims.get(claim)
        if not isinstance(name, str) or not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
            raise _refused(
                f"its claim {claim}, the user's name, is missing, or is not {_MAX_NAME} printable characters at most"
            )
        if claim == "email" and claims.get("email_verified") is False:
            raise _refused("its e-mail address is not verified, and it is the user's name here")
        groups = claims.get(self._settings.groups_claim, [])
        groups = [groups] if isinstance(groups, str) else groups
        if not isinstance(groups, list) or len(groups) > _MAX_GROUPS or not all(isinstance(g, str) for g in groups):
            raise _refused(f"its claim {self._settings.groups_claim} is not a list of {_MAX_GROUPS} texts at most")
        return Caller(Credential.USER, name, frozenset(groups), float(claims["exp"]) + self._settings.clock_skew)

    async def _key(self, kid: str) -> dict[str, Any]:
        """Return the provider's key with an id. Errors: UNAUTHENTICATED; UNAVAILABLE / NO_KEYS."""
        keys, age = self._keys, self._clock() - (self._keys.time if self._keys is not None else 0.0)
        if keys is not None and kid in keys.by_id and (age <= FRESH or (age <= USABLE and self._fetching.locked())):
            return keys.by_id[kid]  # also while a provider that does not answer is asked
        async with self._fetching:
            keys, now = self._keys, self._clock()
            if (keys is None or kid not in keys.by_id or now - keys.time > FRESH) and now - self._attempted >= PAUSE:
                self._attempted = now
                keys = await self._refreshed(keys, now)
        if keys is None or now - keys.time > USABLE:
            message = f"the token can't be checked: {self._problem or 'the keys of the provider are not known'}"
            raise Error(Code.UNAVAILABLE, "NO_KEYS", message)
        if kid not in keys.by_id:
            raise _refused("it is signed with a key that the provider does not publish")
        return keys.by_id[kid]

    async def _refreshed(self, keys: _Keys | None, now: float) -> _Keys | None:
        """Fetch the keys, and return them; the ones from before if that fails."""
        try:
            by_id = await asyncio.to_thread(self._fetch_keys)
        except (OSError, ValueError) as error:
            self._problem = str(error)[:300]
            log.error("keys of the OpenID provider can't be fetched", issuer=self._settings.issuer, error=self._problem)
            return keys
        self._keys, self._problem = _Keys(by_id, now), ""
        return self._keys

    def _fetch_keys(self) -> dict[str, dict[str, Any]]:
        """Return the provider's keys by id. Errors: OSError, ValueError, with the URL and the reason."""
        issuer = self._settings.issuer
        discovery = issuer.rstrip("/") + "/.well-known/openid-configuration"
        document = self._json(discovery)
        if document.get("issuer") != issuer:
            raise ValueError(f"{discovery} is of the issuer '{str(document.get('issuer'))[:100]}', not of {issuer}")
        uri = str(document.get("jwks_uri") or "")
        if not uri.startswith("https://") and not issuer.startswith("http://"):
            raise ValueError(f"{discovery} names no https URL of keys (jwks_uri)")
        entries = self._json(uri).get("keys", [])
        # Keys for encryption, and secret ones, are none of these.
        signing = [e for e in entries if isinstance(e, dict) and e.get("use", "sig") == "sig" and e.get("kty") in _KEY_TYPES]
        return {str(entry.get("kid") or ""): entry for entry in signing}

    def _json(self, url: str) -> dict[str, Any]:
        try:
            document = json.loads(self._fetch(url))
        except urllib.error.URLError as error:
            raise OSError(f"{url} can't be read: {getattr(error, 'reason', error)}") from None
        except OSError as error:
            raise OSError(f"{url} can't be read: {error}") from None
        except ValueError:
            raise ValueError(f"{url} is not JSON") from None
        if not isinstance(document, dict):
            raise ValueError(f"{url} is not a JSON object")
        return document


def _fetch_with(ca: str) -> Fetch:
    """Return a function that reads URLs. Errors: INVALID_ARGUMENT for a file of authorities that can't be used."""
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as error:  # of TLS, too
        raise invalid("access", f"oidc.ca: {ca} can't be used: {(error.strerror or str(error)).lower()}") from None

    def fetch(url: str) -> bytes:
        # The issuer's URL is checked where the access file is read: https, or http on loopback.
        with urllib.request.urlopen(url, timeout=_TIMEOUT, context=context if url.startswith("https:") else None) as answer:
            data: bytes = answer.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise OSError(f"it is larger than {_MAX_BYTES:,} bytes")
        return data

    return fetch


def _number(claims: dict[str, Any], name: str, default: float) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(f"its claim {name} is not a time")
    return float(value)


def _refused(problem: str) -> Error:
    return Error(Code.UNAUTHENTICATED, "BAD_TOKEN", f"the token is refused: {problem}")
