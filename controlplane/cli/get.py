"""The command `get`: objects of desired state, nodes and revisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any

import typer

from controlplane.cli import complete, history, messages, names, nodes, objects, output, prune
from controlplane.cli.client import Client
from controlplane.cli.object_tables import objects_table
from controlplane.cli.options import Api, Output, connect, resource
from controlplane.cli.output import Format, line
from controlplane.domain.collections import COLLECTIONS, Collection

# Kinds of which desired state has no objects. The singular means the same.
_OTHER_KINDS = ("nodes", "revisions", "all")


def _kinds() -> tuple[str, ...]:
    return (*names.object_kinds(), *_OTHER_KINDS)


def get(
    ctx: typer.Context,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar=f"{'|'.join(_kinds())} [NAME]...",
            show_default=False,
            autocompletion=complete.kinds_and_objects,
            help="A kind of objects, and the names of those to show, by default all. KIND/NAME names one object, too.",
        ),
    ],
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Show objects.

    `turnout apply` reads the YAML and JSON of gateways, models, secrets and all. Private keys are never shown. If you apply
    a secret without a private key, the stored key is kept.

    \b
    turnout get models
    turnout get model iris -o yaml
    turnout get models/iris gateways/edge -o yaml
    turnout get all -o yaml > state.yaml
    turnout get revision 12 -o json

    JSON: Manifest for gateways, models, secrets and all; ListNodesResponse for nodes; ListRevisionsResponse for revisions.
    """
    named = names.parse(arguments, _kinds())
    others = [kind for kind in named if kind in _OTHER_KINDS]
    if others and len(named) > 1:
        raise typer.BadParameter(f"{others[0]} can't be shown together with other kinds")
    if named.get("all"):
        raise typer.BadParameter("`all` takes no names")
    client = connect(ctx, api)
    if "nodes" in named:
        nodes.show_nodes(client, named["nodes"], form)
    elif "revisions" in named:
        history.show_revisions(client, named["revisions"], form)
    elif "all" in named:
        everything = prune.everything(client)
        _show({row.name: list(getattr(everything, row.name)) for row in COLLECTIONS}, form)
    else:
        _show({row.name: _objects(client, row, named[row.name]) for row in COLLECTIONS if row.name in named}, form)


def _objects(client: Client, row: Collection, labels: list[str]) -> list[Any]:
    """Return the named objects of a noun, or all of them."""
    if not labels:
        return objects.list_all(client, row)
    return [objects.get(client, row, resource(row.name, name)) for name in labels]


def _show(listed: Mapping[str, Sequence[Any]], form: Format) -> None:
    """Print objects, by the name of their collection. As data, a collection's list is present even if it is empty."""
    if form is Format.NAME:
        for obj in chain.from_iterable(listed.values()):
            output.raw(obj.name)
        return
    if form is not Format.TABLE:
        messages.print_data({name: [messages.desired(obj, form) for obj in group] for name, group in listed.items()}, form)
        return
    tables = [objects_table(row, listed[row.name]) for row in COLLECTIONS if listed.get(row.name)]
    for i, table in enumerate(tables):
        if i:
            line()
        output.show(table)
    if not tables:
        output.notice("nothing exists yet; `turnout apply -f FILE` creates objects")
