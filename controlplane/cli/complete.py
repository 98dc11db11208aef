"""What the shell offers where a name is wanted: asked of the server, quickly, and in silence when there is none."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

import grpc
import typer

from controlplane.cli import listing
from controlplane.cli.client import DEFAULT_API, Client
from controlplane.errors import Error

# Seconds that somebody who pressed TAB waits at most.
_PATIENCE = 1.0


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of models."""
    return _offered(ctx, incomplete, lambda client: [m.name.removeprefix("models/") for m in listing.models(client)])


def versions(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of versions of the models that are named on the line already; of any model when none is."""
    named = {str(n).partition("=")[0].removeprefix("models/") for n in ctx.params.get("models") or ()}

    def of(client: Client) -> list[str]:
        found = [m for m in listing.models(client) if not named or m.name.removeprefix("models/") in named]
        return [version.name for model in found for version in model.versions]

    return _offered(ctx, incomplete, of)


def objects(ctx: typer.Context, incomplete: str) -> list[str]:
    """Resource names of models, gateways and secrets."""
    return _offered(
        ctx,
        incomplete,
        lambda client: [
            *(m.name for m in listing.models(client)),
            *(g.name for g in listing.gateways(client)),
            *(s.name for s in listing.secrets(client)),
        ],
    )


def nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of nodes, but for those that a shell or a terminal would take for something else: they are clients' words."""
    return _offered(ctx, incomplete, lambda client: [n.id for n in listing.nodes(client)[0] if shlex.quote(n.id) == n.id])


def _offered(ctx: typer.Context, incomplete: str, names: Callable[[Client], list[str]]) -> list[str]:
    address = ctx.params.get("api") or os.environ.get("TURNOUT_API") or DEFAULT_API
    client = Client(str(address), retry_for=0, notice=lambda text: None, call_timeout=_PATIENCE)
    try:
        return sorted({n for n in names(client) if n.startswith(incomplete)})
    except (Error, grpc.RpcError):
        return []
    finally:
        client.close()
