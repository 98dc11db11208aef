"""The credentials of the command line: TLS to the server, and a token or a client certificate that says who calls.

| | option | variable | client.yaml |
|---|---|---|---|
| TLS | `--ca` | TURNOUT_CA | `ca` |
| client certificate | `--cert`, `--key` | TURNOUT_CERT, TURNOUT_KEY | `cert`, `key` |
| token, if `turnout login` stored none for the address | `--token-file` | TURNOUT_TOKEN_FILE | `token_file` |

client.yaml is `$XDG_CONFIG_HOME/turnout/client.yaml`, or ~/.config/turnout/client.yaml. It is for the server that its `api`
names, so that no token goes to another one. A token is never an argument, which every user of the machine could read.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from controlplane.cli.document import Mapping as YamlMapping
from controlplane.cli.document import Scalar, documents
from controlplane.cli.exits import FilesError, Place, Problem, file_error, unreadable
from controlplane.errors import Code, Error, did_you_mean

# In place of a file of authorities: those of the system.
SYSTEM = "system"

# Settings of client.yaml. Those of `login` are the defaults of that command.
KEYS = ("api", "ca", "cert", "key", "token_file", "issuer", "client_id", "scope", "issuer_ca")

_MAX_BYTES = 1 << 20
_MAX_TOKEN = 16_000


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files of TLS and of a token; "" without."""

    ca: str = ""  # a file of authorities, or SYSTEM; "": no TLS
    cert: str = ""
    key: str = ""
    token_file: str = ""
    # Returns a token that `turnout login` stored, or "". It may renew it. Errors: Error.
    stored_token: Callable[[], str] = lambda: ""

    def channel(self, address: str, options: list[tuple[str, int]]) -> grpc.Channel:
        """Return a channel to the server. Errors: FilesError; INVALID_ARGUMENT for what does not fit."""
        if bool(self.cert) is not bool(self.key):
            raise Error(Code.INVALID_ARGUMENT, "INVALID_FIELD", "a client certificate needs both --cert and --key")
        if self.cert and not self.ca:
            raise Error(Code.INVALID_ARGUMENT, "INVALID_FIELD", f"a client certificate needs --ca, or --ca {SYSTEM}")
        if not self.ca:
            return grpc.insecure_channel(address, options=options)
        authorities = None if self.ca == SYSTEM else _read(self.ca)
        pair = (_read(self.key), _read(self.cert)) if self.cert else (None, None)
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(authorities, *pair), options=options)

    def metadata(self, address: str) -> tuple[tuple[str, str], ...]:
        """Return the metadata with the token; empty without one.

        Errors: FilesError; INVALID_ARGUMENT / TOKEN_IN_THE_CLEAR if other machines could read it on the way.
        """
        token = _token(self.token_file) if self.token_file else self.stored_token()
        if not token:
            return ()
        if not self.ca and not _loopback(address):
            message = f"the token would be sent to {address} in the clear: give the server's authorities with --ca FILE"
            raise Error(Code.INVALID_ARGUMENT, "TOKEN_IN_THE_CLEAR", message)
        return (("authorization", f"Bearer {token}"),)


def config_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of client.yaml and of stored tokens."""
    env = os.environ if environ is None else environ
    base = env.get("XDG_CONFIG_HOME", "")
    return Path(base if base.startswith("/") else os.path.join(env.get("HOME", "/"), ".config"), "turnout")


def client_config(folder: Path) -> dict[str, str]:
    """Return the settings of client.yaml, with paths relative to its folder; empty if there is none. Errors: FilesError."""
    path = folder / "client.yaml"
    try:
        with path.open("rb") as opened:
            text = opened.read(_MAX_BYTES).decode()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise unreadable(str(path), error) from None
    except UnicodeDecodeError:
        raise file_error(str(path), 0, "is not UTF-8") from None
    settings: dict[str, str] = {}
    problems: list[Problem] = []
    for document in documents(text, str(path)):
        if not isinstance(document, YamlMapping):
            raise file_error(str(path), document.line, "must be `name: value` lines")
        for name, (key, value) in document.entries.items():
            if name not in KEYS:
                hint = did_you_mean(name, KEYS) or f"there are: {', '.join(KEYS)}"
                problems.append(Problem(Place(str(path), key.line), "", f"unknown setting '{name[:80]}'; {hint}"))
            elif not isinstance(value, Scalar):
                problems.append(Problem(Place(str(path), key.line), name, "must be a single value"))
            else:
                is_file = name in ("ca", "cert", "key", "token_file", "issuer_ca") and value.text != SYSTEM
                settings[name] = str(folder / Path(value.text).expanduser()) if is_file else value.text
    if settings and "api" not in settings:
        problems.append(Problem(Place(str(path), 1), "", "needs `api: HOST:PORT`, the server that it is for"))
    if problems:
        raise FilesError(problems)
    return settings


def private_file(path: Path, text: str) -> None:
    """Write a file that only its owner can read, in one step. Errors: FilesError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise file_error(str(path), 0, f"can't be written: {(error.strerror or str(error)).lower()}") from None


def _token(path: str) -> str:
    token = _read(path).decode("ascii", "replace").strip()
    if not re.fullmatch(r"[\x21-\x7e]{1,16000}", token):
        raise file_error(path, 0, f"holds no token: one word of at most {_MAX_TOKEN:,} characters")
    return token


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None


def _loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
