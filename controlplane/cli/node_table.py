"""Several nodes: the fleet's counts, a table with one line a node, notes, and what the nodes refuse."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from controlplane.cli import output, wording
from controlplane.cli.wording import plural
from controlplane.errors import escaped
from controlplane.generated.turnout.v1.node_pb2 import Node, NodeState
from controlplane.generated.turnout.v1.node_service_pb2 import FleetSummary

_COLOURS = {
    NodeState.NODE_STATE_SYNCED: "green",
    NodeState.NODE_STATE_BEHIND: "yellow",
    NodeState.NODE_STATE_REFUSING: "bold red",
    NodeState.NODE_STATE_GONE: "yellow",
    NodeState.NODE_STATE_RELEASED: "dim",
}
# Nodes whose notes are printed below a table; the others are counted.
MAX_NOTES = 10
# Refusals that are printed below a table, equal ones as one; the others are counted.
MAX_REFUSALS = 20
# Resources of one refusal that are named.
_MAX_RESOURCES = 5


def fleet_line(summary: FleetSummary) -> Text:
    """Return `Revision 7. Nodes: 3 in sync, 0 behind, 1 refusing, 1 gone; 4 of 5 hold it`."""
    revision = f"Revision {summary.revision}" if summary.revision else "No revision yet"
    text = Text(f"{revision}. Nodes: ", style="bold")
    counts = (
        (summary.synced, "in sync", "green"),
        (summary.behind, "behind", "yellow"),
        (summary.refusing, "refusing", "bold red"),
        (summary.gone, "gone", "yellow"),
        *(((summary.released, "released", "dim"),) if summary.released else ()),
    )
    for i, (count, word, colour) in enumerate(counts):
        text.append(", " if i else "").append(f"{count:,} {word}", style=colour if count else "")
    if summary.refusing or summary.gone:  # then the states alone don't say how many hold the revision
        text.append(f"; {summary.holding:,} of {summary.counted:,} hold it")
    return text


def nodes_table(nodes: Iterable[Node]) -> RenderableType:
    """Return a table with one line a node."""
    return output.table(("NODE", "STATE", "HOLDS", "VARIANT", "GATEWAYS", "CLIENT", "SEEN"), map(_row, nodes))


def _row(node: Node) -> tuple[str | Text, ...]:
    state = wording.enum_word(NodeState, node.state, "NODE_STATE_")
    # After a restart of the control plane, the revision of a node that is away is not known.
    unknown = node.state == NodeState.NODE_STATE_GONE and not node.held_revision
    held = "?" if unknown else str(node.held_revision)
    holds = held if node.held_revision == node.target_revision else f"{held} of {node.target_revision}"
    gateways = ", ".join(g.removeprefix("gateways/") for g in node.gateways) or "none selects it"
    # Two Envoys with the same id look like one node, so the number of streams is shown.
    variants = ", ".join(node.variants) + (f" ×{node.streams}" if node.streams > 1 else "")
    return (
        wording.clip(node.name),
        Text(state, _COLOURS.get(node.state, "")),
        holds,
        variants,
        gateways,
        wording.clip(node.user_agent),
        _seen(node),
    )


def _seen(node: Node) -> str:
    """Return the time since the node's last message; `≤2h` if only its hour is known, because it was before a restart."""
    seen = node.last_seen_time
    is_hour = not node.streams and not seen.nanos and seen.seconds % 3600 == 0
    return f"≤{wording.ago(seen)}" if is_hour and seen.seconds else wording.ago(seen)


def notes(nodes: Iterable[Node]) -> RenderableType:
    """Return the notes of connected nodes: why a node gets less than others."""
    noted = [n for n in nodes if n.note and n.streams]
    lines: list[RenderableType] = [Text(f"{wording.clip(n.name)}: {escaped(n.note)}") for n in noted[:MAX_NOTES]]
    if len(noted) > MAX_NOTES:
        lines.append(Text(f"and {len(noted) - MAX_NOTES:,} more; `turnout nodes -o json` has every note"))
    return Group(*([Text()] if lines else []), *lines)


def refusals(nodes: Iterable[Node]) -> RenderableType:
    """Return what the nodes refuse and why.

    Nodes that refuse the same resources with the same error text share one entry. The entry with the most nodes is first.
    """
    by_cause: dict[tuple[str, str], list[tuple[Node, int]]] = {}
    for node in nodes:
        for refusal in node.refusals:
            resources = wording.resources(refusal.type, refusal.resources, _MAX_RESOURCES)
            by_cause.setdefault((resources, wording.indented(refusal.message)), []).append((node, refusal.revision))
    if not by_cause:
        return Group()
    ordered = sorted(by_cause.items(), key=lambda entry: -len(entry[1]))
    lines: list[RenderableType] = []
    for (resources, error), refused in ordered[:MAX_REFUSALS]:
        lines += [Text(), Text(_who_refuses(resources, refused), "bold red"), Text(f"    {error}")]
    if len(ordered) > MAX_REFUSALS:
        lines += [Text(), Text(f"and {len(ordered) - MAX_REFUSALS:,} more; `turnout nodes -o json` has every refusal")]
    total = sum(map(len, by_cause.values()))
    if total == 1:
        lines.append(Text("1 refusal: the node keeps using what it had."))
    else:
        lines.append(
            Text(f"{plural(total, 'refusal')}: the nodes keep using what they had. `turnout nodes NODE` shows one of them.")
        )
    return Group(*lines)


def _who_refuses(resources: str, refused: list[tuple[Node, int]]) -> str:
    names = list(dict.fromkeys(node.name for node, _ in refused))
    verb = "refuses" if len(names) == 1 else "refuse"
    oldest, newest = min(r for _, r in refused), max(r for _, r in refused)
    revisions = f"revision {newest}" if oldest == newest else f"revisions {oldest} to {newest}"
    return f"{wording.node_list(names)} {verb} {resources} of {revisions}:"
