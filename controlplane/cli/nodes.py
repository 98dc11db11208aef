"""The command `nodes`: the Envoys and other xDS clients, and what each holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Group, RenderableType

from controlplane.cli import complete, listing, messages, node_blocks, output
from controlplane.cli.client import Client
from controlplane.cli.node import node_view
from controlplane.cli.node_blocks import BLOCK, BLOCKS, UNBLOCK
from controlplane.cli.node_blocks import WORDS as BLOCK_WORDS
from controlplane.cli.node_table import fleet_line, nodes_table, notes, refusals
from controlplane.cli.options import MAX_NODES, Api, Output, Watch, connect
from controlplane.cli.output import Format
from controlplane.cli.watching import follow, print_each, show_live
from controlplane.cli.wording import plural
from controlplane.generated.turnout.v1.node_pb2 import Node
from controlplane.generated.turnout.v1.node_service_pb2 import (
    AdoptNodesRequest,
    AdoptNodesResponse,
    ForgetNodesRequest,
    ForgetNodesResponse,
    GetNodeRequest,
    GetNodeStatusRequest,
    ListNodesResponse,
    ReconnectNodeRequest,
    WatchNodesRequest,
    WatchNodesResponse,
)

# Resources of one node that a table lists.
_TABLE_RESOURCES = 100
_MAX_RESOURCES = 10_000
# The words that make the command forget or adopt nodes.
FORGET, ADOPT = "forget", "adopt"
_WORDS = (FORGET, ADOPT, *BLOCK_WORDS)


def nodes(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE | forget NODE... | adopt NODE... | block CLIENT | unblock CLIENT | blocks]",
            show_default=False,
            autocompletion=complete.nodes_or_words,
            help="Show this node in detail, or forget, adopt or block nodes. Default: a table of all nodes.",
        ),
    ] = None,
    watch: Watch = False,
    reconnect: Annotated[
        bool,
        typer.Option("--reconnect", help="End the node's streams. It connects again and gets again what it refused."),
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Of one node: list also the resources that are in sync, with version and time.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="With block: why.")] = "",
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Show the Envoys: what each holds, should hold, and refuses.

    With the name of one node: each resource that is not in sync, the reason, and a diff to what the node should hold.

    \b
    STALE    sent and not yet ACKed, or waiting for another resource
    REFUSED  the node refused (NACKed) the response that contained it
    UNASKED  available for the node, which has not subscribed to it

    `forget NODE...` forgets nodes that are gone for good: then no command waits for them. `adopt NODE...` sends the
    newest revision to nodes that are held back, whatever they lose. `block CLIENT` ends the streams of the clients with this
    node id or identity within seconds, and refuses new ones until `unblock CLIENT`; `blocks` lists the blocks.

    \b
    turnout nodes edge-1
    turnout nodes edge-1 --all -o json
    turnout nodes forget edge-2 edge-3
    turnout nodes block spiffe://example.org/ns/shop/sa/web --reason "key stolen"

    JSON: ListNodesResponse; with NODE, GetNodeStatusResponse; with --watch, one WatchNodesResponse a line; with
    --reconnect, ReconnectNodeResponse; with forget, ForgetNodesResponse; with adopt, AdoptNodesResponse;
    with block, unblock and blocks, BlockNodeResponse, UnblockNodeResponse and ListNodeBlocksResponse.
    """
    names = names or []
    options = every or watch or reconnect
    if reason and names[:1] != [BLOCK]:
        raise typer.BadParameter("works only with block", param_hint="--reason")
    if len(names) > 1 or names[:1] in ([word] for word in _WORDS):
        _run_word(ctx, api, names, reason, form, options=options)
    elif options:
        _run_option(ctx, api, names[0] if names else "", form, every=every, watch=watch, reconnect=reconnect)
    elif names:
        _show_node(connect(ctx, api), _resource_name(names[0]), form, every)
    else:
        show_nodes(connect(ctx, api), [], form)


def _run_word(ctx: typer.Context, api: str | None, names: list[str], reason: str, form: Format, *, options: bool) -> None:
    """Do what the first of `names` says, like `forget`."""
    _check_words(names, options=options)
    if names[0] in BLOCK_WORDS:
        node_blocks.run(connect(ctx, api), names, reason, form)
    else:
        _forget_or_adopt(connect(ctx, api), names, form)


def _run_option(
    ctx: typer.Context, api: str | None, name: str, form: Format, *, every: bool, watch: bool, reconnect: bool
) -> None:
    """Do what --all, --watch or --reconnect says."""
    if every and (watch or reconnect or not name):
        raise typer.BadParameter("needs the name of one node, and no --watch or --reconnect", param_hint="--all")
    if reconnect and (watch or not name):
        raise typer.BadParameter("needs the name of one node, and no --watch", param_hint="--reconnect")
    client = connect(ctx, api)
    if reconnect:
        _reconnect(client, _resource_name(name), form)
    elif watch:
        _watch(client, _resource_name(name) if name else "", form)
    else:
        _show_node(client, _resource_name(name), form, every)


def show_nodes(client: Client, names: list[str], form: Format) -> None:
    """Print the named nodes, or all."""
    if names:
        listed = [client.call(client.nodes.GetNode, GetNodeRequest(name=_resource_name(n))).node for n in names]
        answer = ListNodesResponse(nodes=listed)
    else:
        listed, summary = listing.nodes(client)
        answer = ListNodesResponse(nodes=listed, summary=summary)
    if form is Format.NAME:
        for node in listed:
            output.print_name(node.name)
    elif form is not Format.TABLE:
        messages.print_data(messages.report(answer, form), form)
    elif listed:
        output.show(Group(nodes_table(listed), notes(listed), refusals(listed)))
    else:
        output.notice("no node has connected; `turnout bootstrap NODE_ID` prints what an Envoy needs to connect")


def _watch(client: Client, name: str, form: Format) -> None:
    def answers() -> Iterator[WatchNodesResponse]:
        for answer in client.stream(client.nodes.WatchNodes, WatchNodesRequest(max_nodes=MAX_NODES)):
            yield WatchNodesResponse(summary=answer.summary, nodes=_named(answer.nodes, name))

    def page(answer: WatchNodesResponse) -> RenderableType:
        return Group(fleet_line(answer.summary), nodes_table(answer.nodes), notes(answer.nodes))

    def print_answer(answer: WatchNodesResponse) -> None:
        if form is Format.NAME:
            output.print_name(" ".join(n.name for n in answer.nodes))
        else:
            messages.print_data(messages.report(answer, form), form, one_line=True)

    updates = follow(client, answers)
    if form is Format.TABLE:
        show_live(updates, page)
    else:
        print_each(updates, print_answer)


def _reconnect(client: Client, name: str, form: Format) -> None:
    answer = client.call(client.nodes.ReconnectNode, ReconnectNodeRequest(name=name))
    if form is Format.NAME:
        output.print_name(name)
    elif form is not Format.TABLE:
        messages.print_data(messages.report(answer, form), form)
    else:
        output.line(f"Ended {plural(answer.streams, 'stream')} of {name}. The node connects again within seconds.")


def _check_words(names: list[str], *, options: bool) -> None:
    word = names[0]
    if word not in _WORDS:
        raise typer.BadParameter("name one node, or write: turnout nodes forget NODE...", param_hint="NODE")
    if options or (len(names) == 1) == (word != BLOCKS) or (word in (BLOCK, UNBLOCK) and len(names) > 2):
        one = "one node id or identity"
        needs = {BLOCKS: "no names", BLOCK: one, UNBLOCK: one}.get(word, "names of nodes")
        raise typer.BadParameter(f"needs {needs} and no options; a node of this name is nodes/{word}", param_hint=word)


def _forget_or_adopt(client: Client, names: list[str], form: Format) -> None:
    """Forget or adopt nodes. `names` begins with the word `forget` or `adopt`."""
    word = names[0]
    resource_names = [_resource_name(name) for name in dict.fromkeys(names[1:])]
    count = plural(len(resource_names), "node")
    answer: ForgetNodesResponse | AdoptNodesResponse
    if word == FORGET:
        answer = client.call(client.nodes.ForgetNodes, ForgetNodesRequest(names=resource_names))
        text = f"Forgot {count}. A node that connects again is a new node."
    else:
        answer = client.call(client.nodes.AdoptNodes, AdoptNodesRequest(names=resource_names))
        text = f"Adopted {count}: sent revision {answer.revision}. What it does not have is removed."
    if form is Format.NAME:
        for name in resource_names:
            output.print_name(name)
    elif form is not Format.TABLE:
        messages.print_data(messages.report(answer, form), form)
    else:
        output.line(text)


def _show_node(client: Client, name: str, form: Format, every: bool) -> None:
    limit = _TABLE_RESOURCES if form is Format.TABLE and not every else _MAX_RESOURCES
    request = GetNodeStatusRequest(name=name, max_resources=limit, include_synced=every)
    answer = client.call(client.nodes.GetNodeStatus, request)
    node: Node = answer.status.node
    if form is Format.NAME:
        output.print_name(node.name)
    elif form is not Format.TABLE:
        value: dict[str, Any] = messages.report(answer, form)
        messages.print_data(value, form)
    else:
        output.show(Group(nodes_table([node]), notes([node]), node_view(answer.status, every)))


def _named(nodes: Iterable[Node], name: str) -> list[Node]:
    """Return the node of this name, or all nodes if the name is empty."""
    return [n for n in nodes if not name or n.name == name]


def _resource_name(node: str) -> str:
    return node if node.startswith("nodes/") else f"nodes/{quote(node, safe='')}"
