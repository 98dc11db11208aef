"""The receipt of a change: what changed, what the Envoys are sent, and which nodes hold the revision."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.cli import messages, output, wording
from controlplane.cli.changes import describe_impact, print_changes, print_warnings
from controlplane.cli.client import Client
from controlplane.cli.cuts import needed, print_losses
from controlplane.cli.exits import Ended, Exit
from controlplane.cli.options import Requirement
from controlplane.cli.output import Format, line
from controlplane.cli.wait import disconnected_nodes, wait_for, with_all_nodes
from controlplane.cli.wording import plural
from controlplane.generated.turnout.v1.model_service_pb2 import SwitchTrafficResponse, UndoModelsResponse
from controlplane.generated.turnout.v1.node_pb2 import Node
from controlplane.generated.turnout.v1.revision_pb2 import Impact, NodeProgress, NodeProgressState, Revision, RevisionProgress
from controlplane.generated.turnout.v1.revision_service_pb2 import ApplyResponse, RestoreStateResponse, RevertRevisionResponse

Answer = ApplyResponse | RestoreStateResponse | RevertRevisionResponse | SwitchTrafficResponse | UndoModelsResponse

# A receipt lists each node's time if there are at most so many.
_LISTED_NODES = 10
# Lines for nodes that don't hold the revision, or still refuse an older one. Nodes with equal text share a line.
_MAX_LINES = 20
# Disconnected nodes that a warning names; the others are counted.
_MAX_DISCONNECTED = 3
# Objects of which a receipt lists the changes.
_MAX_CHANGES = 50
# Resources of one refusal that are named.
_MAX_RESOURCES = 3
_HOLDING = NodeProgressState.NODE_PROGRESS_STATE_HOLDING
_GONE = NodeProgressState.NODE_PROGRESS_STATE_GONE


def finish(
    client: Client,
    answer: Answer,
    form: Format,
    *,
    changed: bool,
    timeout: float | None,
    dry_run: bool = False,
    require: Requirement = Requirement.KNOWN,
    notes: Sequence[str] = (),
) -> None:
    """Print the receipt of a change; with a `timeout` in seconds, after waiting for the nodes that `require` names.

    With `dry_run`, the change was not made, and nothing is waited for. `notes` are lines for people below the first line, for
    example about the revision that an undo takes back. Errors: Ended if not every node holds the revision.
    """
    revision = answer.revision
    if dry_run:
        finish_dry_run(answer, form, changed=changed, notes=notes)
        return
    if form is Format.TABLE:
        _print_change(revision, answer.impact, changed, notes)
    progress, code = None, Exit.OK
    if timeout is not None:
        progress, code = wait_for(client, revision.number, timeout, answer.impact.nodes, require)
    since = revision.create_time
    if not changed:
        since = Timestamp()
        since.GetCurrentTime()
    disconnected: list[Node] = []
    if progress is not None and form is not Format.NAME and require is Requirement.CONNECTED:
        disconnected = disconnected_nodes(client, revision.number, since)
    if form is Format.NAME:
        output.raw(revision.name)
    elif form is not Format.TABLE:
        messages.print_data(receipt_data(answer, form, changed, progress, disconnected), form)
    elif progress is not None:
        _print_progress(with_all_nodes(client, progress, require), {node.name for node in disconnected})
        _warn_of(disconnected, since)
    if code is not Exit.OK:
        raise Ended(code, _failure(code, revision.number, progress, timeout))


def finish_dry_run(
    answer: Answer,
    form: Format,
    *,
    changed: bool,
    notes: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
    lines_after: Sequence[str] = (),
) -> None:
    """Print what a change would do. `more` is added to the data. Errors: Ended, with exit code 1, if it would do anything."""
    if form is Format.TABLE:
        if changed:
            line("Dry run: nothing was changed.", "bold yellow")
            _print_change(answer.revision, answer.impact, changed, notes, dry_run=True)
        else:
            line(f"Nothing would change: revision {answer.revision.number} is like this already.")
    else:
        output.notice("Dry run: nothing was changed.")
        if form is Format.NAME:
            for change in answer.revision.changes if changed else ():
                output.raw(change.name)
        else:
            data = receipt_data(answer, form, changed) | {messages.key("dry_run", form): True} | dict(more or {})
            messages.print_data(data, form)
    if lines_after:
        line("\n".join(lines_after), "yellow")
    if changed:
        raise Ended(Exit.DIFFERENCE)


def receipt_data(
    answer: Answer, form: Format, changed: bool, progress: RevisionProgress | None = None, disconnected: Sequence[Node] = ()
) -> dict[str, Any]:
    """Return a receipt as data: the call's response, and after waiting `progress` and `disconnectedNodes`."""
    value = messages.report(answer, form) | {"changed": changed}
    if isinstance(answer, SwitchTrafficResponse | UndoModelsResponse):
        value["models"] = [messages.desired(m, form) for m in answer.models]
    if progress is not None:
        value["progress"] = messages.report(progress, form)
        value[messages.key("disconnected_nodes", form)] = messages.reports(disconnected, form)
    return value


def _print_change(
    revision: Revision, impact: Impact, changed: bool, notes: Sequence[str] = (), *, dry_run: bool = False
) -> None:
    if not changed:
        line(f"Nothing to change: revision {revision.number} is like this already.")
        return
    reason = f": {revision.reason}" if revision.reason else ""
    line(f"{'It would be revision' if dry_run else 'Revision'} {revision.number} by {revision.author}{reason}", "bold")
    for note in notes:
        line(note)
    print_changes(revision.changes, _MAX_CHANGES)
    sent = "Would be sent to" if dry_run else "Sent to"
    line(f"{sent} {plural(impact.nodes, 'node')}: {describe_impact(impact)}")
    print_losses(impact, dry_run=dry_run)
    print_warnings(impact)
    if dry_run and impact.cut_token:
        line(needed(impact.cut_token), "yellow")


def _print_progress(progress: RevisionProgress, listed_elsewhere: Container[str]) -> None:
    """Print how many nodes hold the revision, and what is wrong with the others, except nodes that are listed elsewhere."""
    number, created = progress.revision.number, progress.revision.create_time
    if progress.total:
        last_ack = ""
        if progress.HasField("last_ack_time"):
            last_ack = f"; commit to last ACK {wording.milliseconds(created, progress.last_ack_time)}"
        text = f"Held by {progress.holding:,} of {plural(progress.total, 'node')}{last_ack}"
        line(text, "bold green" if progress.complete else "bold yellow")
    else:
        line(f"No Envoy is connected. Revision {number} is saved and goes to the next Envoy that connects.")
    for expected in progress.expected:
        if expected.holding < expected.expected:
            expects = f"expects {plural(expected.expected, 'node')}"
            line(f"    {expected.gateway} {expects}; held by {expected.holding:,}", "yellow")
    _print_nodes(progress, listed_elsewhere)


def _print_nodes(progress: RevisionProgress, listed_elsewhere: Container[str]) -> None:
    """Print when the nodes began to hold the revision if they are few, and what is wrong with the others."""
    number, created = progress.revision.number, progress.revision.create_time
    if progress.total <= _LISTED_NODES:
        for node in sorted(progress.nodes, key=lambda n: (n.hold_time.seconds, n.hold_time.nanos)):
            if node.HasField("hold_time"):
                line(f"    {wording.clip(node.node)}  {wording.milliseconds(created, node.hold_time)}")
    by_text: dict[str, list[NodeProgress]] = {}
    for node in progress.nodes:
        if (node.state != _HOLDING or node.refused_type) and node.node not in listed_elsewhere:
            by_text.setdefault(_describe(node, number), []).append(node)
    groups = list(by_text.values())
    for nodes in groups[:_MAX_LINES]:
        names, text = wording.node_list([n.node for n in nodes]), _describe(nodes[0], number, many=len(nodes) > 1)
        if nodes[0].state == _HOLDING:
            line(f"    {names} {text}", "yellow")
        else:
            line(f"    {names}  {text}")
    # Nodes beyond these lines, and nodes that the server did not list.
    hidden = sum(map(len, groups[_MAX_LINES:]))
    hidden += progress.total + progress.released - progress.holding - sum(n.state != _HOLDING for n in progress.nodes)
    if hidden:
        line(f"    and {plural(hidden, 'node')} more; `turnout status` shows what each refuses, `turnout nodes` lists all")
    releases = [n.release_time for n in progress.nodes if n.state == _GONE and n.node not in listed_elsewhere]
    if releases:
        last = wording.when(max(releases, key=lambda t: (t.seconds, t.nanos)))
        line(f"    A node that is gone counts until it is released, at the latest {last}. If it does not come back:")
        line("    `turnout nodes forget NODE`")


def _describe(node: NodeProgress, number: int, *, many: bool = False) -> str:
    """Return what a node did with the revision; `many` gives the verbs their plural."""
    resources = wording.resources(node.refused_type, node.refused_resources, _MAX_RESOURCES)
    match node.state:
        case NodeProgressState.NODE_PROGRESS_STATE_HOLDING:
            verb = "refuse" if many else "refuses"
            return f"still {verb} {resources} since revision {node.refused_revision}: {wording.indented(node.error)}"
        case NodeProgressState.NODE_PROGRESS_STATE_REFUSED:
            older = f" of revision {node.refused_revision}, which this one needs" if node.refused_revision < number else ""
            return f"refused {resources}{older}: {wording.indented(node.error)}"
        case NodeProgressState.NODE_PROGRESS_STATE_GONE:
            held = f" and held revision {node.held_revision} before" if node.held_revision else ""
            return f"{'are' if many else 'is'} gone (not connected){held}"
        case NodeProgressState.NODE_PROGRESS_STATE_RELEASED:
            were, stay = ("were", "they stayed") if many else ("was", "it stayed")
            return f"{were} released, because {stay} away: not counted"
        case _ if node.held_back:
            are, keep, hold = ("are", "keep", "they hold") if many else ("is", "keeps", "it holds")
            return f"{are} held back and {keep} what {hold} of another history: `turnout status` says what to do"
        case _:
            have, hold = ("have", "hold") if many else ("has", "holds")
            return f"{have} not ACKed yet, {hold} revision {node.held_revision}"


def _warn_of(disconnected: Sequence[Node], since: Timestamp) -> None:
    if not disconnected:
        return
    names = ", ".join(f"{wording.clip(n.name)} ({_when_seen(n, since)})" for n in disconnected[:_MAX_DISCONNECTED])
    more = f" and {len(disconnected) - _MAX_DISCONNECTED:,} more" if len(disconnected) > _MAX_DISCONNECTED else ""
    verb = "does" if len(disconnected) == 1 else "do"
    line(f"Warning: {plural(len(disconnected), 'node')} disconnected and {verb} not hold it: {names}{more}", "yellow")


def _when_seen(node: Node, since: Timestamp) -> str:
    seen = node.disconnect_time
    if (seen.seconds, seen.nanos) <= (since.seconds, since.nanos):
        return f"{wording.milliseconds(seen, since)} before"
    return f"{wording.milliseconds(since, seen)} after"


def _failure(code: Exit, number: int, progress: RevisionProgress | None, timeout: float | None) -> str:
    if code is Exit.REFUSED:
        assert progress is not None
        keeps = "keeps what it" if progress.refused == 1 else "keep what they"
        return f"revision {number} was made, but {plural(progress.refused, 'node')} refused it and {keeps} had"
    if code is Exit.INCOMPLETE:
        assert progress is not None
        too_few = any(e.counted < e.expected for e in progress.expected)
        parts = [f"{plural(progress.gone, 'node')} {'is' if progress.gone == 1 else 'are'} gone"] if progress.gone else []
        parts += ["a gateway has fewer nodes than it expects"] if too_few else []
        return f"revision {number} was made, but not every node holds it: {' and '.join(parts)}"
    return (
        f"revision {number} was made, but not every node holds it after {timeout:g} s; "
        "`turnout status` shows which nodes are behind"
    )
