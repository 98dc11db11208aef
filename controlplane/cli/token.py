"""The command `token`: tokens for small set-ups without an OpenID provider."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from controlplane.access.tokens import PREFIX, hashed, is_token_name, parse_tokens
from controlplane.cli.credentials import private_file
from controlplane.cli.exits import file_error, unreadable
from controlplane.cli.output import notice
from controlplane.errors import Code, Error

app = typer.Typer(no_args_is_help=True, help="Make tokens for callers of the API, in set-ups without an OpenID provider.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the caller. Rules call it token:NAME.")]
Tokens = Annotated[
    Path, typer.Option("--tokens", metavar="FILE", help="The server's token file (--api-tokens). It is made if it is missing.")
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="File for the token itself, for the caller.")]
Days = Annotated[int, typer.Option("--days", metavar="N", min=0, max=3650, help="Days until it expires. 0: never.")]


@app.command("new", help="Make a token, and add its hash to the server's token file.")
def new(name: Name, tokens: Tokens, out: Out, days: Days = 90) -> None:
    r"""Make a token, and add its hash to the server's token file.

    The token is written to --out, with mode 0600, and nowhere else. The server takes the changed file over within a second.

    \b
    turnout token new ci --tokens tokens.yaml --out ci.token
    """
    if not is_token_name(name):
        raise typer.BadParameter(f"'{name[:80]}' is not letters, digits and . _ @ -, at most 100", param_hint="NAME")
    text = _content(tokens)
    if any(token.name == name for token in parse_tokens(text, str(tokens)).values()):
        message = f"{tokens} has a token of {name} already: remove its lines first, which withdraws it"
        raise Error(Code.ALREADY_EXISTS, "ALREADY_EXISTS", message)
    if out.exists():
        raise file_error(str(out), 0, "exists already: name another file, or remove it")
    token = PREFIX + secrets.token_urlsafe(32)
    expires = f"\n    expires: {datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}" if days else ""
    begin = "tokens:\n" if text == _EMPTY else text if text.endswith("\n") else text + "\n"
    changed = f"{begin}  - name: {name}\n    sha256: {hashed(token)}{expires}\n"
    parse_tokens(changed, str(tokens))  # the file may be in another form, like JSON
    private_file(out, token + "\n")
    private_file(tokens, changed)
    notice(f"the token of token:{name} is in {out}, its hash in {tokens}")


_EMPTY = "tokens: []\n"


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _EMPTY
    except OSError as error:
        raise unreadable(str(path), error) from None
    except UnicodeDecodeError:
        raise file_error(str(path), 0, "is not UTF-8") from None
