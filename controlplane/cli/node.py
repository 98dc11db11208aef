"""One node: what it holds of each resource, against what it should hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from controlplane.cli import output
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


def view(status: NodeStatus, every: bool) -> RenderableType:
    """Counts by type, what is not in sync and why, and what lies between; with `every` what is in sync, too."""
    parts: list[RenderableType] = [Text()]
    if status.node.state == NodeState.NODE_STATE_GONE:
        parts.append(Text("It is not connected: what it holds now is not known."))
        return Group(*parts)
    if not status.types:
        parts.append(Text("It has asked for nothing, and there is nothing for it."))
        return Group(*parts)
    parts.append(_types(status.types))
    absent = sum(t.absent for t in status.types)
    if absent:
        parts.append(Text(f"It asks for {output.plural(absent, 'name')} that nothing has."))
    if every:
        headings = ("TYPE", "NAME", "STATE", "VERSION", "TAKEN")
        parts += [Text(), output.table(headings, map(_row, status.resources))]
    late = [r for r in status.resources if r.state not in _IN_SYNC]
    for i, resource in enumerate(late):
        parts += [Text(), _why(resource, late[i - 1] if i else None), *_between(resource)]
    if status.omitted:
        more = "" if every else "; `--all -o json` lists up to 10,000"
        parts += [Text(), Text(f"and {output.plural(status.omitted, 'resource')} more{more}")]
    if not late and not absent:
        parts += [Text(), Text("All is as it should be.")]
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
        rows.append((t.type, str(total), *counts, output.ago(t.newest_time)))
    return output.table(headings, rows)


def _row(resource: ResourceStatus) -> tuple[str | Text, ...]:
    state = output.enum_word(ResourceState, resource.state, "RESOURCE_STATE_").replace("_", " ")
    taken = output.ago(resource.take_time)
    if taken and not resource.take_time_exact:
        taken = f"{taken} or more"
    version = resource.held_version or "none"
    return resource.type, resource.name, Text(state, _COLOURS.get(resource.state, "")), version, taken


def _why(resource: ResourceStatus, before: ResourceStatus | None) -> Text:
    """Which, and why; the words of a response that was refused as a whole are not said twice."""
    said = before is not None and before.refusal.message == resource.refusal.message
    text = Text(f"{output.resources(resource.type, [resource.name])} ", "bold")
    return text.append(_reason(resource, said_before=said), _COLOURS.get(resource.state, ""))


def _reason(resource: ResourceStatus, *, said_before: bool) -> str:
    refusal = resource.refusal
    words = "in the same words" if said_before else output.words(refusal.message)
    went = bool(resource.held_version) and not resource.target_version
    match resource.state:
        case ResourceState.RESOURCE_STATE_REFUSED:
            what = "its removal was refused" if went else "was refused"
            return f"{what} {output.ago(refusal.time)} ago, of revision {refusal.revision}: {words}"
        case ResourceState.RESOURCE_STATE_SENT:
            what = "its removal was sent" if went else "was sent"
            return f"{what} with revision {resource.sent_revision}, and is not answered yet"
        case ResourceState.RESOURCE_STATE_WAITING if resource.HasField("refusal"):
            return f"is to be tried again after a refusal {output.ago(refusal.time)} ago: {words}"
        case ResourceState.RESOURCE_STATE_WAITING if went:
            return "is to be removed, once nothing at the node can use it"
        case ResourceState.RESOURCE_STATE_WAITING:
            return "is not sent yet: it waits for what it needs, or for an answer to what was sent before"
        case ResourceState.RESOURCE_STATE_NOT_ASKED:
            return "is there for it, and it has not asked for it"
        case state:
            return output.enum_word(ResourceState, state, "RESOURCE_STATE_")


def _between(resource: ResourceStatus) -> Iterator[RenderableType]:
    if resource.diff_note:
        held, target = output.shown(resource.held_version) or "nothing", resource.target_version or "nothing"
        yield Text(f"    holds {held}, should hold {target}; not compared: {resource.diff_note}")
    for line in resource.diff:
        yield Text(f"    {escaped(line)}", _DIFF_COLOURS.get(line[:1], ""))
