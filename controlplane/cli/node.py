"""One node: what it holds of each resource, compared with what it should hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from controlplane.cli import output, wording
from controlplane.errors import escaped
from controlplane.generated.turnout.v1.node_pb2 import NodeState, NodeStatus, ResourceState, ResourceStatus, TypeStatus

_COLOURS = {
    ResourceState.RESOURCE_STATE_SYNCED: "green",
    ResourceState.RESOURCE_STATE_SENT: "yellow",
    ResourceState.RESOURCE_STATE_WAITING: "yellow",
    ResourceState.RESOURCE_STATE_REFUSED: "bold red",
    ResourceState.RESOURCE_STATE_NOT_ASKED: "yellow",
}
_IN_SYNC = (ResourceState.RESOURCE_STATE_SYNCED, ResourceState.RESOURCE_STATE_ABSENT)
_DIFF_COLOURS = {"+": "green", "-": "red", "@": "dim"}


def node_view(status: NodeStatus, every: bool) -> RenderableType:
    """Return counts by type, each resource that is not in sync with the reason, and its diff.

    With `every`, a table of all resources comes first.
    """
    parts: list[RenderableType] = [Text()]
    if status.node.identity:
        parts.append(Text(f"Its certificate proves the identity {escaped(status.node.identity)}."))
    if status.node.state in (NodeState.NODE_STATE_GONE, NodeState.NODE_STATE_RELEASED):
        parts.append(Text("It is not connected, so what it holds now is unknown."))
        return Group(*parts)
    if not status.types:
        parts.append(Text("It has subscribed to nothing, and nothing is meant for it."))
        return Group(*parts)
    parts.append(_types(status.types))
    absent = sum(t.absent for t in status.types)
    if absent:
        parts.append(Text(f"It subscribes to {wording.plural(absent, 'name')} that no resource has."))
    if every:
        headings = ("TYPE", "NAME", "STATE", "VERSION", "TAKEN")
        parts += [Text(), output.table(headings, map(_row, status.resources))]
    if status.node.held_back:
        parts += [Text(), Text("It is sent nothing while it is held back. What it holds of another history is not compared.")]
        return Group(*parts)
    out_of_sync = [r for r in status.resources if r.state not in _IN_SYNC]
    for i, resource in enumerate(out_of_sync):
        parts += [Text(), _reason_line(resource, out_of_sync[i - 1] if i else None), *_diff(resource)]
    if status.omitted:
        more = "" if every else "; `--all -o json` lists up to 10,000"
        parts += [Text(), Text(f"and {wording.plural(status.omitted, 'resource')} more{more}")]
    if not out_of_sync and not absent:
        parts += [Text(), Text("Everything is in sync.")]
    return Group(*parts)


def _types(types: Iterable[TypeStatus]) -> RenderableType:
    headings = ("TYPE", "RESOURCES", "SYNCED", "STALE", "REFUSED", "UNASKED", "NEWEST")
    rows = []
    for t in types:
        stale = t.sent + t.waiting
        counts = (
            Text(str(t.synced)),
            Text(str(stale), "yellow" if stale else ""),
            Text(str(t.refused), "bold red" if t.refused else ""),
            Text(str(t.not_asked), "yellow" if t.not_asked else ""),
        )
        total = t.synced + stale + t.refused + t.not_asked
        rows.append((t.type, str(total), *counts, wording.ago(t.newest_time)))
    return output.table(headings, rows)


def _row(resource: ResourceStatus) -> tuple[str | Text, ...]:
    state = wording.enum_word(ResourceState, resource.state, "RESOURCE_STATE_").replace("_", " ")
    taken = wording.ago(resource.take_time)
    if taken and not resource.take_time_exact:
        taken = f"{taken} or more"
    version = resource.held_version or "none"
    return resource.type, resource.name, Text(state, _COLOURS.get(resource.state, "")), version, taken


def _reason_line(resource: ResourceStatus, before: ResourceStatus | None) -> Text:
    """Return the resource and why it is not in sync.

    A node refuses a response as a whole, so neighbours often have the same error text. It is printed once.
    """
    same_error = before is not None and before.refusal.message == resource.refusal.message
    text = Text(f"{wording.resources(resource.type, [resource.name])} ", "bold")
    return text.append(_reason(resource, same_error=same_error), _COLOURS.get(resource.state, ""))


def _reason(resource: ResourceStatus, *, same_error: bool) -> str:
    refusal = resource.refusal
    error = "the same error as above" if same_error else wording.indented(refusal.message)
    is_removal = bool(resource.held_version) and not resource.target_version
    match resource.state:
        case ResourceState.RESOURCE_STATE_REFUSED:
            what = "its removal was refused" if is_removal else "was refused"
            return f"{what} {wording.ago(refusal.time)} ago, of revision {refusal.revision}: {error}"
        case ResourceState.RESOURCE_STATE_SENT:
            what = "its removal was sent" if is_removal else "was sent"
            return f"{what} with revision {resource.sent_revision} and is not ACKed yet"
        case ResourceState.RESOURCE_STATE_WAITING if resource.HasField("refusal"):
            return f"will be sent again; it was refused {wording.ago(refusal.time)} ago: {error}"
        case ResourceState.RESOURCE_STATE_WAITING if is_removal:
            return "will be removed once the node no longer uses it"
        case ResourceState.RESOURCE_STATE_WAITING:
            return "is not sent yet: it waits for a resource that it needs, or for the answer to an earlier response"
        case ResourceState.RESOURCE_STATE_NOT_ASKED:
            return "is available, but the node has not subscribed to it"
        case state:
            return wording.enum_word(ResourceState, state, "RESOURCE_STATE_")


def _diff(resource: ResourceStatus) -> Iterator[RenderableType]:
    if resource.diff_note:
        held, target = wording.clip(resource.held_version) or "nothing", resource.target_version or "nothing"
        yield Text(f"    holds {held}, should hold {target}; not compared: {resource.diff_note}")
    for line in resource.diff:
        yield Text(f"    {escaped(line)}", _DIFF_COLOURS.get(line[:1], ""))
