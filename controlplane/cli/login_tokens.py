"""Tokens that `turnout login` stored, one file for each server, with mode 0600. They are renewed when they expire.

The requests are those of OAuth 2.0: RFC 8628 (device flow) and RFC 6749, section 6 (refresh).
"""

from __future__ import annotations

import json
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from controlplane.cli.credentials import private_file
from controlplane.cli.exits import file_error, unreadable
from controlplane.errors import Code, Error, escaped

# A token is renewed this long before it expires. Seconds.
_EARLY = 30.0
_TIMEOUT = 10.0
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredToken:
    """The answer of a provider to a login, and what a renewal needs."""

    access_token: str
    expires_at: float  # seconds since the epoch
    refresh_token: str  # "" if the provider gave none
    token_endpoint: str
    client_id: str
    issuer_ca: str  # a file of authorities; "": those of the system


def token_path(folder: Path, address: str) -> Path:
    """Return the file of the token for a server."""
    return folder / "tokens" / f"{re.sub(r'[^A-Za-z0-9.-]', '_', address)}.json"


def save(path: Path, token: StoredToken) -> None:
    """Store a token with mode 0600. Errors: FilesError."""
    private_file(path, json.dumps(asdict(token)))


def stored_token(folder: Path, address: str, clock: Callable[[], float] = time.time) -> str:
    """Return the access token for a server, renewed if it expires; "" if there was no login.

    Errors: FilesError; UNAUTHENTICATED / LOGIN_EXPIRED; UNAVAILABLE if the provider does not answer.
    """
    path = token_path(folder, address)
    token = _read(path)
    if token is None:
        return ""
    if token.expires_at - _EARLY > clock():
        return token.access_token
    if not token.refresh_token:
        raise Error(Code.UNAUTHENTICATED, "LOGIN_EXPIRED", "the login has expired: run `turnout login` again")
    form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token, "client_id": token.client_id}
    status, answer = post(token.token_endpoint, form, token.issuer_ca)
    if status != 200:
        problem = escaped(str(answer.get("error_description") or answer.get("error") or status))[:200]
        raise Error(Code.UNAUTHENTICATED, "LOGIN_EXPIRED", f"the login has ended ({problem}): run `turnout login` again")
    renewed = from_answer(answer, token, clock())
    save(path, renewed)
    return renewed.access_token


def from_answer(answer: Mapping[str, Any], before: StoredToken, now: float) -> StoredToken:
    """Return the token of a provider's answer. Errors: UNAVAILABLE / BAD_ANSWER."""
    access_token, expires_in = answer.get("access_token"), answer.get("expires_in", 300)
    if not isinstance(access_token, str) or not access_token or not isinstance(expires_in, int | float):
        raise _bad_answer(before.token_endpoint, "has no access_token")
    refresh_token = answer.get("refresh_token") or before.refresh_token  # it may stay the same
    return replace(before, access_token=access_token, expires_at=now + expires_in, refresh_token=str(refresh_token))


def discover(issuer: str, ca: str) -> dict[str, Any]:
    """Return the provider's discovery document. Errors: UNAVAILABLE."""
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    status, document = _request(urllib.request.Request(url), ca)
    if status != 200 or document.get("issuer") != issuer:
        raise _bad_answer(url, f"is of issuer '{str(document.get('issuer'))[:100]}'" if status == 200 else f"answers {status}")
    return document


def post(url: str, form: Mapping[str, str], ca: str) -> tuple[int, dict[str, Any]]:
    """Send a form, and return the status and the JSON of the answer. Errors: UNAVAILABLE."""
    return _request(urllib.request.Request(url, urllib.parse.urlencode(form).encode()), ca)


def _request(request: urllib.request.Request, ca: str) -> tuple[int, dict[str, Any]]:
    url = request.full_url
    if not re.match(r"https://|http://(localhost|127\.0\.0\.1|\[::1\])[:/]", url):
        raise _bad_answer(url, "is no https URL (http on loopback only)")
    try:
        context = ssl.create_default_context(cafile=ca or None) if url.startswith("https:") else None
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT, context=context) as response:
                status, data = response.status, response.read(_MAX_BYTES)
        except urllib.error.HTTPError as error:
            status, data = error.code, error.read(_MAX_BYTES)
    except OSError as error:
        raise Error(Code.UNAVAILABLE, "PROVIDER", f"{url} can't be read: {getattr(error, 'reason', error)}") from None
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise _bad_answer(url, f"answers {status} without a JSON object")
    return status, answer


def _read(path: Path) -> StoredToken | None:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(str(path), error) from None
    try:
        return StoredToken(**json.loads(text))
    except (ValueError, TypeError):
        raise file_error(str(path), 0, "is damaged: run `turnout login` again") from None


def _bad_answer(url: str, problem: str) -> Error:
    return Error(Code.UNAVAILABLE, "BAD_ANSWER", f"{url} {problem}")
