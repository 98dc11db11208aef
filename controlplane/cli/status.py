"""The command `status`: the fleet, the split of each model, and the nodes that are not in sync, on one page."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from controlplane.cli import listing, messages, output, wording
from controlplane.cli.client import Client
from controlplane.cli.node_table import fleet_line, nodes_table, notes, refusals
from controlplane.cli.options import MAX_NODES, Api, Output, Watch, connect
from controlplane.cli.output import Format
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.node_pb2 import NodeState
from controlplane.generated.turnout.v1.node_service_pb2 import WatchNodesRequest, WatchNodesResponse

# Nodes that a table lists.
_TABLE_NODES = 20
# Nodes that `--watch` lists as data; those that are not in sync come first.
_WATCHED_NODES = 100


def status(
    ctx: typer.Context,
    watch: Watch = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Show the fleet, where the traffic of each model goes, and which nodes are not in sync.

    \b
    turnout status
    turnout status --watch
    turnout status -o json

    JSON: `summary` (FleetSummary), `models` (list of Model), `nodes` (list of Node: those that are not in sync). With
    --watch, one such object a line, and at most 100 nodes.
    """
    client = connect(ctx, api)
    updates = _updates(client, watch, MAX_NODES if form is Format.TABLE else _WATCHED_NODES)
    if form is not Format.TABLE:
        for fleet, models in updates:
            _print_data(fleet, models, form, watch)
    elif watch:
        output.live(_page(fleet, models) for fleet, models in updates)
    else:
        for fleet, models in updates:
            output.show(_page(fleet, models))


def _updates(client: Client, watch: bool, max_nodes: int) -> Iterator[tuple[WatchNodesResponse, list[Model]]]:
    """Yield the fleet with the models, once or at each change.

    A change comes with at most `max_nodes` nodes, those that are not in sync first. The models are read again when there
    is a new revision.
    """
    if not watch:
        listed, summary = listing.nodes(client)
        yield WatchNodesResponse(summary=summary, nodes=listed), listing.models(client)
        return
    models: list[Model] = []
    revision = -1
    for fleet in client.stream(client.nodes.WatchNodes, WatchNodesRequest(max_nodes=max_nodes)):
        if fleet.summary.revision != revision:
            models, revision = listing.models(client), fleet.summary.revision
        yield fleet, models


def _page(fleet: WatchNodesResponse, models: list[Model]) -> RenderableType:
    parts: list[RenderableType] = [fleet_line(fleet.summary)]
    if models:
        rows = (
            (m.name, wording.split(m.split), ", ".join(v.name for v in m.versions), wording.revision_of(m.etag))
            for m in models
        )
        parts += [Text(), output.table(("MODEL", "TRAFFIC", "VERSIONS", "REVISION"), rows)]
    out_of_sync = [n for n in fleet.nodes if n.state != NodeState.NODE_STATE_SYNCED]
    if out_of_sync:
        parts += [Text(), nodes_table(out_of_sync[:_TABLE_NODES])]
        if len(out_of_sync) > _TABLE_NODES:
            parts.append(Text(f"and {len(out_of_sync) - _TABLE_NODES:,} more; `turnout nodes` shows all"))
    parts += [notes(fleet.nodes), refusals(out_of_sync)]
    return Group(*parts)


def _print_data(fleet: WatchNodesResponse, models: list[Model], form: Format, watch: bool) -> None:
    if form is Format.NAME:
        output.raw(" ".join(m.name for m in models))
        return
    out_of_sync = [n for n in fleet.nodes if n.state != NodeState.NODE_STATE_SYNCED]
    value = {
        "summary": messages.report(fleet.summary, form),
        "models": [messages.desired(m, form) for m in models],
        "nodes": messages.reports(out_of_sync, form),
    }
    messages.print_data(value, form, one_line=watch)
