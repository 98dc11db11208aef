"""The fleet: nodes, status."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from controlplane.cli import complete, listing, output
from controlplane.cli.client import Client
from controlplane.cli.node import view
from controlplane.cli.options import Api, Output, Watch, connect
from controlplane.cli.output import Format, plural
from controlplane.errors import escaped
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.node_pb2 import Node, NodeState
from controlplane.generated.turnout.v1.node_service_pb2 import (
    FleetSummary,
    GetNodeRequest,
    GetNodeStatusRequest,
    ReconnectNodeRequest,
    WatchNodesRequest,
    WatchNodesResponse,
)

_COLOURS = {
    NodeState.NODE_STATE_SYNCED: "green",
    NodeState.NODE_STATE_BEHIND: "yellow",
    NodeState.NODE_STATE_REFUSING: "bold red",
    NodeState.NODE_STATE_GONE: "dim",
}


# Nodes of which the note is shown below a table; the others are counted.
NOTES = 10
# Refusals that are shown below it, those that are alike as one; the others are counted.
REFUSALS = 20
# Nodes of a watched status as data: the first of those that are not in sync.
_WATCHED = 100
_EVERY_NODE = 10_000


def nodes(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NODE]", show_default=False, autocompletion=complete.nodes)] = "",
    watch: Watch = False,
    reconnect: Annotated[
        bool, typer.Option("--reconnect", help="Have the node connect anew: it is sent again what it refused.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Of one node: list what is in sync, too, with version and time.")
    ] = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    """Show the Envoys: what each holds, should hold, and refuses.

    With the name of one: its resources that are not as they should be, why,
    and a diff of what it holds against what it should hold.

    STALE was sent and is not answered, or waits for something else.
    REFUSED is a whole response: what came along with a bad resource, too.
    UNASKED is there for it, and it has not asked for it.

    \b
    turnout nodes
    turnout nodes edge-1
    turnout nodes edge-1 --all -o json
    turnout nodes --watch
    turnout nodes edge-1 --reconnect
    """
    if every and (watch or reconnect or not name):
        raise typer.BadParameter("goes with the name of one node, and without --watch and --reconnect", param_hint="--all")
    if reconnect and (watch or not name):
        raise typer.BadParameter("goes with the name of one node, and without --watch", param_hint="--reconnect")
    client = connect(ctx, api)
    if reconnect:
        _reconnect(client, _node_name(name), form)
        return
    if name and not watch:
        _show_node(client, _node_name(name), form, every)
        return
    if not watch:
        show_nodes(client, [], form)
        return
    wanted = _node_name(name) if name else ""
    pictures = client.stream(client.nodes.WatchNodes, WatchNodesRequest(max_nodes=_EVERY_NODE))
    if form is Format.TABLE:
        shown = ((p.summary, _only(p.nodes, wanted)) for p in pictures)
        output.live(Group(_summary(counts), _nodes_table(seen), _notes(seen)) for counts, seen in shown)
        return
    for picture in pictures:
        chosen = _only(picture.nodes, wanted)
        if form is Format.NAME:
            output.name(" ".join(n.name for n in chosen))
        else:
            output.data(output.as_report(WatchNodesResponse(summary=picture.summary, nodes=chosen)), form, one_line=True)


def status(
    ctx: typer.Context,
    watch: Watch = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    """Show the whole at a glance: the fleet, where traffic goes, and what is refused.

    \b
    turnout status
    turnout status --watch
    turnout status -o json
    """
    client = connect(ctx, api)
    pictures = _statuses(client, watch, _EVERY_NODE if form is Format.TABLE else _WATCHED)
    if form is Format.TABLE:
        shown = (_status(picture, models) for picture, models in pictures)
        if watch:
            output.live(shown)
        else:
            for renderable in shown:
                output.show(renderable)
        return
    for picture, models in pictures:
        refusing = [output.as_report(n) for n in picture.nodes if n.refusals]
        traffic = [{"name": m.name, "split": dict(m.split), "etag": m.etag} for m in models]
        value = {"summary": output.as_report(picture.summary), "models": traffic, "refusing": refusing}
        if form is Format.NAME:
            output.raw(" ".join(m.name for m in models))
        else:
            output.data(value, form, one_line=watch)


def _reconnect(client: Client, name: str, form: Format) -> None:
    answer = client.call(client.nodes.ReconnectNode, ReconnectNodeRequest(name=name))
    if form is Format.NAME:
        output.name(name)
    elif form is not Format.TABLE:
        output.data({"name": name, "streams": answer.streams}, form)
    else:
        were = "was" if answer.streams == 1 else "were"
        output.line(f"{plural(answer.streams, 'stream')} of {name} {were} ended: it connects anew within seconds.")


def _show_node(client: Client, name: str, form: Format, every: bool) -> None:
    most = 100 if form is Format.TABLE and not every else 10_000
    request = GetNodeStatusRequest(name=name, max_resources=most, include_synced=every)
    status = client.call(client.nodes.GetNodeStatus, request).status
    if form is Format.NAME:
        output.name(status.node.name)
    elif form is not Format.TABLE:
        whole = output.as_report(status)
        output.data({"nodes": [whole.pop("node")], **whole}, form)
    else:
        output.show(Group(_nodes_table([status.node]), _notes([status.node]), view(status, every)))


def show_nodes(client: Client, names: list[str], form: Format) -> None:
    """Prints nodes: those that are named, or all."""
    if names:
        listed = [client.call(client.nodes.GetNode, GetNodeRequest(name=_node_name(n))).node for n in names]
        value: dict[str, Any] = {"nodes": [output.as_report(n) for n in listed]}
    else:
        listed, summary = listing.nodes(client)
        value = {"summary": output.as_report(summary), "nodes": [output.as_report(n) for n in listed]}
    if form is Format.NAME:
        for node in listed:
            output.name(node.name)
    elif form is not Format.TABLE:
        output.data(value, form)
    elif listed:
        output.show(Group(_nodes_table(listed), _notes(listed), _refusals(listed)))
    else:
        output.notice("no node has connected; `turnout bootstrap NODE_ID` prints what an Envoy needs to")


def _statuses(client: Client, watch: bool, most: int) -> Iterator[tuple[WatchNodesResponse, list[Model]]]:
    """The fleet with the models, once or at each change; models are read again when there is a new revision.

    At each change `most` nodes are listed at most, those that are not in sync first.
    """
    if not watch:
        listed, summary = listing.nodes(client)
        yield WatchNodesResponse(summary=summary, nodes=listed), listing.models(client)
        return
    models: list[Model] = []
    revision = -1
    for picture in client.stream(client.nodes.WatchNodes, WatchNodesRequest(max_nodes=most)):
        if picture.summary.revision != revision:
            models, revision = listing.models(client), picture.summary.revision
        yield picture, models


def _status(picture: WatchNodesResponse, models: list[Model]) -> RenderableType:
    parts: list[RenderableType] = [_summary(picture.summary)]
    if models:
        rows = ((m.name, output.split(m.split), ", ".join(v.name for v in m.versions), m.etag) for m in models)
        parts += [Text(), output.table(("MODEL", "TRAFFIC", "VERSIONS", "REVISION"), rows)]
    late = [n for n in picture.nodes if n.state != NodeState.NODE_STATE_SYNCED]
    if late:
        parts += [Text(), _nodes_table(late[:20])]
        if len(late) > 20:
            parts.append(Text(f"and {len(late) - 20:,} more; `turnout nodes` shows all"))
    parts += [_notes(picture.nodes), _refusals(late)]
    return Group(*parts)


def _summary(summary: FleetSummary) -> Text:
    text = Text(f"Revision {summary.revision}. Nodes: ", style="bold")
    counts = (
        (summary.synced, "in sync", "green"),
        (summary.behind, "behind", "yellow"),
        (summary.refusing, "refusing", "bold red"),
        (summary.gone, "gone", "dim"),
    )
    for i, (count, word, colour) in enumerate(counts):
        text.append(", " if i else "").append(f"{count:,} {word}", style=colour if count else "")
    return text


def _nodes_table(listed: Iterable[Node]) -> RenderableType:
    headings = ("NODE", "STATE", "HOLDS", "SPEAKS", "GATEWAYS", "CLIENT", "SEEN")
    return output.table(headings, map(_row, listed))


def _row(node: Node) -> tuple[str | Text, ...]:
    state = output.enum_word(NodeState, node.state, "NODE_STATE_")
    holds = (
        str(node.held_revision)
        if node.held_revision == node.target_revision
        else f"{node.held_revision} of {node.target_revision}"
    )
    gateways = ", ".join(g.removeprefix("gateways/") for g in node.gateways) or "none selects it"
    seen = output.ago(node.last_seen_time)
    colour = _COLOURS.get(node.state, "")
    # Two Envoys under one id would look like one.
    speaks = ", ".join(node.variants) + (f" ×{node.streams}" if node.streams > 1 else "")
    return output.shown(node.name), Text(state, colour), holds, speaks, gateways, output.shown(node.user_agent), seen


def _notes(listed: Iterable[Node]) -> RenderableType:
    """Why nodes are not given more, of those that are connected."""
    told = [n for n in listed if n.note and n.state != NodeState.NODE_STATE_GONE]
    lines: list[RenderableType] = [Text(f"{output.shown(n.name)}: {escaped(n.note)}") for n in told[:NOTES]]
    if len(told) > NOTES:
        lines.append(Text(f"and {len(told) - NOTES:,} more; `turnout nodes -o json` has every note"))
    return Group(*([Text()] if lines else []), *lines)


def _refusals(listed: Iterable[Node]) -> RenderableType:
    """What is refused and why, once for all nodes that refuse the same in the same words; what most refuse first."""
    alike: dict[tuple[str, str], list[tuple[Node, int]]] = {}
    for node in listed:
        for refusal in node.refusals:
            what = output.resources(refusal.type, refusal.resources, 5)
            alike.setdefault((what, output.words(refusal.message)), []).append((node, refusal.revision))
    if not alike:
        return Group()
    lines: list[RenderableType] = []
    ordered = sorted(alike.items(), key=lambda entry: -len(entry[1]))
    for (what, words), refused in ordered[:REFUSALS]:
        names = list(dict.fromkeys(node.name for node, _ in refused))
        verb = "refuses" if len(names) == 1 else "refuse"
        oldest, newest = min(r for _, r in refused), max(r for _, r in refused)
        since = f"revision {newest}" if oldest == newest else f"revisions {oldest} to {newest}"
        lines += [
            Text(),
            Text(f"{output.nodes(names)} {verb} {what} of {since}:", "bold red"),
            Text(f"    {words}"),
        ]
    if len(ordered) > REFUSALS:
        lines += [Text(), Text(f"and {len(ordered) - REFUSALS:,} more; `turnout nodes -o json` has every refusal")]
    refusals = sum(map(len, alike.values()))
    who = "that node goes on with what it" if refusals == 1 else "those nodes go on with what they"
    where = "" if refusals == 1 else " `turnout nodes NODE` shows all of one."
    lines.append(Text(f"{plural(refusals, 'refusal')}: {who} had.{where}"))
    return Group(*lines)


def _only(listed: Iterable[Node], name: str) -> list[Node]:
    return [n for n in listed if not name or n.name == name]


def _node_name(given: str) -> str:
    return given if given.startswith("nodes/") else f"nodes/{quote(given, safe='')}"
