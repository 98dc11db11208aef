"""The token file: the callers that have a token, each with the hash of its token. A token is not in it.

    tokens:
      - name: ci
        sha256: 6b1f…
        expires: 2027-03-01T00:00:00Z

A token is 256 random bits, so a plain hash is enough: nobody can try all of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controlplane.access.file_reader import FileReader, InvalidValue

# The beginning of each token, by which people and scanners of leaked secrets recognise it.
PREFIX = "turnout_"

_TOKEN = re.compile(r"turnout_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")


@dataclass(frozen=True, slots=True)
class Token:
    """The entry of one token."""

    name: str
    sha256: str
    # When it expires, seconds since the epoch; None if it never does.
    expires: float | None = None


def parse_tokens(text: str, file: str) -> Mapping[str, Token]:
    """Return the tokens by their hash. Errors: INVALID_ARGUMENT with `file:line` of everything that is wrong."""
    return _Parser(file).parse(text)


def is_token(text: str) -> bool:
    """Return True for a text of the form of a token."""
    return _TOKEN.fullmatch(text) is not None


def is_token_name(text: str) -> bool:
    """Return True for a name that a token may have."""
    return _NAME.fullmatch(text) is not None


def hashed(token: str) -> str:
    """Return the hash of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class _Parser(FileReader[Mapping[str, Token]]):
    """Reads one token file."""

    def read(self, node: Any) -> Mapping[str, Token]:
        """Return the content of the file."""
        entries = self.mapping(node, "", ("tokens",))
        tokens: dict[str, Token] = {}
        if "tokens" not in entries:
            self.fail(node, "", "needs `tokens`")
        for i, item in enumerate(self.items(entries["tokens"], "tokens")):
            with suppress(InvalidValue):
                token = self._token(item, f"tokens[{i}]")
                if token.sha256 in tokens:
                    self.problem(item, f"tokens[{i}]", f"is the token of {tokens[token.sha256].name}, too")
                tokens[token.sha256] = token
        return tokens

    def _token(self, node: Any, at: str) -> Token:
        entries = self.mapping(node, at, ("name", "sha256", "expires"))
        for key in ("name", "sha256"):
            if key not in entries:
                self.fail(node, at, f"needs `{key}`")
        name, sha256 = self.text(entries["name"], f"{at}.name"), self.text(entries["sha256"], f"{at}.sha256")
        if not is_token_name(name):
            self.problem(entries["name"], f"{at}.name", f"'{name[:80]}' is not letters, digits and . _ @ -, at most 100")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            self.fail(
                entries["sha256"], f"{at}.sha256", "is not a SHA-256 in hexadecimal: make tokens with `turnout token new`"
            )
        return Token(name, sha256, self._time(entries["expires"], f"{at}.expires") if "expires" in entries else None)

    def _time(self, node: Any, at: str) -> float:
        text = self.text(node, at)
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            self.fail(node, at, f"'{text[:80]}' is not a time, like 2027-03-01T00:00:00Z")
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
