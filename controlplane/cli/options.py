"""Options that several commands share, the connection to the server, and resource names as people type them."""

from __future__ import annotations

import inspect
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from controlplane.cli.client import DEFAULT_API, NO_CREDENTIALS, Client
from controlplane.cli.credentials import Credentials, client_config, config_folder
from controlplane.cli.login_tokens import stored_token
from controlplane.cli.names import without_kind
from controlplane.cli.output import Format, notice

Api = Annotated[
    str | None,
    typer.Option("--api", metavar="HOST:PORT", help=f"The operator API. Default: $TURNOUT_API, or {DEFAULT_API}."),
]
Output = Annotated[
    Format,
    typer.Option(
        "--output", "-o", help="How to print the result: a table for people, JSON or YAML for programs, or only names."
    ),
]
Reason = Annotated[
    str, typer.Option("--reason", "-r", metavar="TEXT", help="The reason for the change, stored in the history.")
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long --wait waits at most.")]
Watch = Annotated[
    bool,
    typer.Option("--watch", "-w", help="Show it again whenever it changes, until Ctrl-C, also after the server restarts."),
]
Files = Annotated[
    list[str],
    typer.Option(
        "--file",
        "-f",
        metavar="FILE|DIR|-",
        help="A YAML or JSON file, a folder of *.yaml, *.yml and *.json files, or - for stdin. Repeatable.",
    ),
]

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every node holds the revision.")]


class Requirement(StrEnum):
    """The nodes that must hold a revision before it is done."""

    KNOWN = "known"
    CONNECTED = "connected"


Require = Annotated[
    Requirement,
    typer.Option(
        "--require",
        help="The nodes to wait for: all that are known, also those that are not connected now, or only the connected ones.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check, and show what would change. Change nothing.")]
NoProbe = Annotated[
    bool, typer.Option("--no-probe", help="Don't probe the endpoints of versions that had no share, and don't warn of them.")
]

# Where the store is: see `settings.default_data`.
DEFAULT_DATA = "$XDG_STATE_HOME/turnout, for a service /var/lib/turnout"
# Where `serve` listens for Envoys, and where a bootstrap sends them.
DEFAULT_XDS = "127.0.0.1:18000"
DEFAULT_WAIT = 60.0
DEFAULT_RETRY = 5.0
# Most nodes that the API lists in one answer of a watch.
MAX_NODES = 10_000


@dataclass(frozen=True, slots=True)
class Globals:
    """Options that come before the command."""

    api: str = DEFAULT_API
    # Seconds for which calls to an unreachable server are repeated.
    retry_for: float = DEFAULT_RETRY
    # The files that options or variables name. Those of client.yaml and of `turnout login` are for one server.
    credentials: Credentials = NO_CREDENTIALS


def connect(ctx: typer.Context, api: str | None) -> Client:
    """Return a client that is closed when the command ends."""
    options = ctx.find_object(Globals) or Globals()
    address = api or options.api
    if not re.fullmatch(r"[^\s/]+:\d{1,5}", address) or int(address.rpartition(":")[2]) > 65_535:
        raise typer.BadParameter(f"'{address}' is not HOST:PORT, like {DEFAULT_API}", param_hint="--api")
    credentials = credentials_for(address, options.credentials)
    client = Client(address, retry_for=options.retry_for, notice=notice, credentials=credentials)
    ctx.call_on_close(client.close)
    return client


def credentials_for(address: str, given: Credentials) -> Credentials:
    """Return the credentials for a server: those that are given, then those of client.yaml, then the stored token.

    Errors: FilesError.
    """
    folder = config_folder()
    config = client_config(folder)
    mine = config if config.get("api") == address else {}
    merged = {name: getattr(given, name) or mine.get(name, "") for name in ("ca", "cert", "key", "token_file")}
    return Credentials(**merged, stored_token=lambda: stored_token(folder, address))


def help_text(command: Callable[..., None]) -> str:
    r"""Return a command's help: its docstring. A paragraph after a line `\b` keeps its line breaks."""
    return inspect.cleandoc(command.__doc__ or "").replace("\\b\n", "\b\n")


def request_id() -> str:
    """Return a new id for one mutation. Its retries use the same id."""
    return str(uuid.uuid4())


def resource(collection: str, name: str) -> str:
    """Return the resource name: `iris`, `model/iris` and `models/iris` are `models/iris`."""
    return f"{collection}/{without_kind(collection, name)}"


def revision_name(text: str, *, earlier: bool = False) -> str:
    """Return the resource name of `7`, `revisions/7`, `7a0b93c1-7` or `latest`. With `earlier`, `latest` is an error."""
    number = text.removeprefix("revisions/")
    if earlier and number == "latest":
        raise typer.BadParameter("the newest revision is live already; name an earlier one", param_hint="N")
    if number != "latest" and not re.fullmatch(r"([0-9a-f]{8}-)?[0-9]+", number):
        raise typer.BadParameter(f"'{text}' is not a revision: write a number" + ("" if earlier else ", or latest"))
    return f"revisions/{number}"
