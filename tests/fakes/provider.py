"""An OpenID provider in memory: keys, tokens, and answers to `fetch`; over HTTP if a server needs it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ISSUER = "https://login.test"
AUDIENCE = "turnout"
NOW = 1_700_000_000.0


class Provider:
    """Signs tokens with the newest key. `now` is the clock of the verifier."""

    def __init__(self, issuer: str = ISSUER, now: float = NOW) -> None:
        self.issuer = issuer
        self.keys: dict[str, Any] = {}
        self.now = now
        self.fetched: list[str] = []
        # Set to an error to be unreachable.
        self.down: OSError | None = None
        self.discovery: dict[str, Any] = {"issuer": issuer, "jwks_uri": f"{issuer}/keys"}
        self.rotate("k1")

    def rotate(self, kid: str, kind: str = "EC", keep: bool = False) -> None:
        """Replace the keys by a new one, or add it."""
        key: Any = ec.generate_private_key(ec.SECP256R1()) if kind == "EC" else rsa.generate_private_key(65537, 2048)
        self.keys = (self.keys if keep else {}) | {kid: key}

    def fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        if self.down is not None:
            raise self.down
        return json.dumps(self.discovery if url.endswith("openid-configuration") else {"keys": self.jwks()}).encode()

    def jwks(self) -> list[dict[str, Any]]:
        entries = []
        for kid, key in self.keys.items():
            algorithm = (
                jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else jwt.algorithms.RSAAlgorithm
            )
            entries.append({**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"})
        return entries

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return claims of a valid token; None leaves one out."""
        claims = {
            "iss": self.issuer,
            "aud": [AUDIENCE, "other"],
            "sub": "anna",
            "iat": self.now,
            "exp": self.now + 300,
            "groups": ["ml-team"],
        }
        return {k: v for k, v in (claims | changed).items() if v is not None}

    def token(self, *, typ: str | None = "at+jwt", kid: str | None = None, algorithm: str = "", **claims: Any) -> str:
        """Return a token that is valid, except for what the arguments change."""
        kid = kid or next(reversed(self.keys))
        key = self.keys.get(kid) or next(iter(self.keys.values()))
        algorithm = algorithm or ("ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256")
        token: str = jwt.encode(self.claims(**claims), key, algorithm, headers={"kid": kid, "typ": typ})
        return token

    def public_pem(self) -> str:
        """Return the newest public key in PEM."""
        key = next(reversed(self.keys.values())).public_key()
        pem: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return pem.decode()


@contextmanager
def serving() -> Iterator[Provider]:
    """Serve the keys of a provider on loopback until the block ends. Its tokens are valid now."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(provider.fetch(self.path))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    provider = Provider(f"http://127.0.0.1:{server.server_port}", time.time())
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
