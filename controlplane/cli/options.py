"""What commands have in common: their options, the way to the server, and names as people type them."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Annotated

import typer

from controlplane.cli.client import DEFAULT_API, Client
from controlplane.cli.output import Format, notice

Api = Annotated[
    str | None,
    typer.Option("--api", metavar="HOST:PORT", help=f"The operator API. Default: $TURNOUT_API, or {DEFAULT_API}."),
]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the result.")]
Reason = Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="Why: kept with the revision.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long --wait waits.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it as it changes; Ctrl-C ends.")]
Files = Annotated[
    list[str],
    typer.Option(
        "--file", "-f", metavar="FILE|DIR|-", help="YAML or JSON; a folder's *.yaml, *.yml, *.json; - is stdin. Repeatable."
    ),
]

DEFAULT_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Globals:
    """Options that stand before the command."""

    api: str = DEFAULT_API
    # Seconds for which a server that is away is tried again.
    retry_for: float = 5.0


def connect(ctx: typer.Context, api: str | None) -> Client:
    """A client for the command; closed with it."""
    given = ctx.find_object(Globals) or Globals()
    address = api or given.api
    if not re.fullmatch(r"[^\s/]+:\d{1,5}", address):
        raise typer.BadParameter(f"'{address}' is not HOST:PORT, like {DEFAULT_API}", param_hint="--api")
    client = Client(address, retry_for=given.retry_for, notice=notice)
    ctx.call_on_close(client.close)
    return client


def request_id() -> str:
    """A new id for one mutation; its retries carry the same."""
    return str(uuid.uuid4())


def resource(collection: str, name: str) -> str:
    """`iris` and `models/iris` are the same model."""
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"


def revision_name(given: str, *, earlier: bool = False) -> str:
    """`7`, `revisions/7`, `latest`; where it must be an `earlier` one, the newest is none."""
    number = given.removeprefix("revisions/")
    if earlier and number == "latest":
        raise typer.BadParameter("the newest revision is what there is; say an earlier one", param_hint="--to")
    if number != "latest" and not (number.isascii() and number.isdecimal()):
        raise typer.BadParameter(f"'{given}' is not a revision: a number" + ("" if earlier else ", or latest"))
    return f"revisions/{number}"
