"""Shell completion of names. They come from the server; if it does not answer quickly, none is offered."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

import grpc
import typer

from controlplane.cli import listing
from controlplane.cli.client import DEFAULT_API, Client
from controlplane.cli.credentials import Credentials
from controlplane.cli.objects import list_all
from controlplane.cli.options import credentials_for
from controlplane.domain.collections import COLLECTIONS
from controlplane.errors import Error

# Seconds that a user who pressed TAB waits at most.
_TIMEOUT = 1.0


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return names of models."""
    return _matching(ctx, incomplete, lambda client: [m.name.removeprefix("models/") for m in listing.models(client)])


def versions(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return names of versions of the models that the command line names already, or of all models."""
    named = {str(n).partition("=")[0].removeprefix("models/") for n in ctx.params.get("models") or ()}

    def names(client: Client) -> list[str]:
        chosen = [m for m in listing.models(client) if not named or m.name.removeprefix("models/") in named]
        return [version.name for model in chosen for version in model.versions]

    return _matching(ctx, incomplete, names)


def objects(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return resource names of objects of all nouns."""

    def names(client: Client) -> list[str]:
        return [obj.name for row in COLLECTIONS for obj in list_all(client, row)]

    return _matching(ctx, incomplete, names)


def kinds_and_objects(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the kinds of objects, or after a slash the resource names of objects."""
    kinds = [row.name for row in COLLECTIONS]
    return objects(ctx, incomplete) if "/" in incomplete else [kind for kind in kinds if kind.startswith(incomplete)]


def nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return ids of nodes, except those that a shell would interpret. Clients choose their ids."""
    return _matching(ctx, incomplete, lambda client: [n.id for n in listing.nodes(client)[0] if shlex.quote(n.id) == n.id])


def nodes_or_words(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the words of the command and ids of nodes; after `forget`, ids of nodes that are not connected."""
    given = ctx.params.get("names") or ()
    if "forget" not in given:
        words = [w for w in ("adopt", "block", "blocks", "forget", "unblock") if w.startswith(incomplete) and not given]
        return [*words, *nodes(ctx, incomplete)]

    def names(client: Client) -> list[str]:
        return [n.id for n in listing.nodes(client)[0] if not n.streams and shlex.quote(n.id) == n.id]

    return _matching(ctx, incomplete, names)


def _matching(ctx: typer.Context, incomplete: str, names: Callable[[Client], list[str]]) -> list[str]:
    """Return the names that begin like the incomplete word; empty if the server does not answer."""
    address = str(ctx.params.get("api") or os.environ.get("TURNOUT_API") or DEFAULT_API)
    ca, cert, key, token_file = (os.environ.get(f"TURNOUT_{name}", "") for name in ("CA", "CERT", "KEY", "TOKEN_FILE"))
    try:
        credentials = credentials_for(address, Credentials(ca, cert, key, token_file))
        client = Client(address, retry_for=0, notice=lambda text: None, call_timeout=_TIMEOUT, credentials=credentials)
    except Error:
        return []
    try:
        return sorted({n for n in names(client) if n.startswith(incomplete)})
    except (Error, grpc.RpcError):
        return []
    finally:
        client.close()
