"""The words `block`, `unblock` and `blocks` of the command `nodes`: clients that may not connect."""

from __future__ import annotations

from controlplane.cli import messages, output, wording
from controlplane.cli.client import Client
from controlplane.cli.output import Format
from controlplane.generated.turnout.v1.node_service_pb2 import (
    BlockNodeRequest,
    BlockNodeResponse,
    ListNodeBlocksRequest,
    ListNodeBlocksResponse,
    UnblockNodeRequest,
    UnblockNodeResponse,
)

BLOCK, UNBLOCK, BLOCKS = "block", "unblock", "blocks"
WORDS = (BLOCK, UNBLOCK, BLOCKS)
COLUMNS = ("CLIENT", "AGO", "AUTHOR", "REASON")


def run(client: Client, names: list[str], reason: str, form: Format) -> None:
    """Block or unblock a client, or list the blocks. `names` begins with the word."""
    answer: BlockNodeResponse | UnblockNodeResponse | ListNodeBlocksResponse
    blocked = [names[1]] if len(names) > 1 else []
    if names[0] == BLOCK:
        answer = client.call(client.nodes.BlockNode, BlockNodeRequest(client=names[1], reason=reason))
        streams = f"Disconnected {', '.join(answer.disconnected)}." if answer.disconnected else "No node of it was connected."
        text = f"Blocked {names[1]}. {streams}"
    elif names[0] == UNBLOCK:
        answer = client.call(client.nodes.UnblockNode, UnblockNodeRequest(client=names[1]))
        text = f"Unblocked {names[1]}. It may connect again."
    else:
        answer = client.call(client.nodes.ListNodeBlocks, ListNodeBlocksRequest(page_size=1_000))
        blocked = [block.client for block in answer.blocks]
        text = "" if blocked else "no client is blocked"
    if form is Format.NAME:
        for name in blocked:
            output.print_name(name)
    elif form is not Format.TABLE:
        messages.print_data(messages.report(answer, form), form)
    elif isinstance(answer, ListNodeBlocksResponse) and answer.blocks:
        rows = [(b.client, wording.ago(b.create_time), b.author, b.reason) for b in answer.blocks]
        output.show(output.table(COLUMNS, rows))
    elif names[0] == BLOCKS:
        output.notice(text)
    else:
        output.line(text)
