"""Done means ACKed: following a revision to the nodes, and the receipt at the end."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from controlplane.cli import output
from controlplane.cli.client import Client
from controlplane.cli.exits import Ended, Exit
from controlplane.cli.output import Format, line, plural
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.node_pb2 import Node, NodeState
from controlplane.generated.turnout.v1.node_service_pb2 import WatchNodesRequest, WatchNodesResponse
from controlplane.generated.turnout.v1.revision_pb2 import Impact, NodeProgress, NodeProgressState, Revision, RevisionProgress
from controlplane.generated.turnout.v1.revision_service_pb2 import WatchRevisionRequest

# A receipt names its nodes up to this many. Of those that don't hold the revision, or hold it but for an older refusal, it has
# up to `_MAX_NAMED` lines, one for all that stand alike.
_EACH = 10
_MAX_NAMED = 20
# Nodes that are listed while they are waited for, and most that the API lists.
_WATCHED = 100
_EVERY_NODE = 10_000
_HOLDING = NodeProgressState.NODE_PROGRESS_STATE_HOLDING
_RECONNECT_EVERY = 0.3
# Seconds in which a node that lost its stream is back: Envoy tries again within 5.
_COME_BACK = 10.0
# Seconds before a revision in which a node that left may be between two connections, and serve what it had.
_LEFT_WITHIN = 60
# Those are named up to this many; the others are counted.
_MOST_LEFT = 3
# Seconds that asking for them may take.
_ASK_FOR = 5.0
# Objects of which a receipt says what changed.
_MOST_CHANGES = 50


def finish(
    client: Client,
    revision: Revision,
    impact: Impact,
    form: Format,
    *,
    changed: bool,
    timeout: float | None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Prints what a mutation made; with a `timeout`, after waiting for the nodes. Errors: Ended when not all hold it."""
    if form is Format.TABLE:
        _headline(revision, impact, changed)
    progress, end = (None, Exit.OK) if timeout is None else wait_for(client, revision.number, timeout)
    since = revision.create_time
    if not changed:
        since = Timestamp()
        since.GetCurrentTime()
    left = [] if progress is None or form is Format.NAME else _left(client, revision.number, since)
    if form is Format.NAME:
        output.raw(revision.name)
    elif form is not Format.TABLE:
        value: dict[str, Any] = {
            "revision": output.as_report(revision),
            "changed": changed,
            "impact": output.as_report(impact),
        }
        value |= extra or {}
        if progress is not None:
            value["progress"] = output.as_report(progress)
            value["left"] = [output.as_report(node) for node in left]
        output.data(value, form)
    elif progress is not None:
        _receipt(_whole(client, progress), {node.name for node in left})
        _tell_of(left, since)
    if end is not Exit.OK:
        raise Ended(end, _why(end, revision.number, progress, timeout))


def wait_for(client: Client, number: int, timeout: float) -> tuple[RevisionProgress | None, Exit]:
    """Follows a revision until every connected node holds it, somebody refuses it and nobody is behind, or time is up.

    Returns the last picture, None when there was none. A server that restarts meanwhile is found again.
    """
    deadline = time.monotonic() + timeout
    request = WatchRevisionRequest(name=f"revisions/{number}", max_nodes=_WATCHED)
    progress: RevisionProgress | None = None
    known = _Known()
    console = output.err()
    columns = (TextColumn("revision {task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(str(number), total=None, said="")
        try:
            while (left := deadline - time.monotonic()) > 0:
                try:
                    for answer in client.stream(client.revisions.WatchRevision, request, timeout=left):
                        progress = answer.progress
                        bar.update(task, total=max(progress.total, 1), completed=progress.holding, said=_said(progress))
                        missing = known.missing(progress, time.monotonic())
                        if progress.complete and missing is not None:
                            if missing:
                                output.notice(
                                    f"{plural(missing, 'node')} went away and did not come back within {_COME_BACK:g} s"
                                )
                            return progress, Exit.OK
                        if progress.refused and not progress.behind:
                            return progress, Exit.REFUSED
                except Error as error:
                    if error.code is not Code.UNAVAILABLE:
                        raise
                # The stream ended, and not all are back, or the server went away. Only the watching starts anew.
                time.sleep(max(0.0, min(_RECONNECT_EVERY, deadline - time.monotonic())))
        except TimeoutError:
            pass
        except KeyboardInterrupt:
            output.notice(f"revision {number} is made; only the waiting was ended")
            raise
    return progress, Exit.TIMEOUT


class _Known:
    """Nodes that went away while they were waited for.

    A server that stops sees its nodes leave, and one that has just started knows none: both call a revision complete that
    nobody holds. So those who left have a while to come back.
    """

    def __init__(self) -> None:
        self.most = 0
        self.first_missed: float | None = None

    def missing(self, progress: RevisionProgress, now: float) -> int | None:
        """How many went away for good; None while they may come back."""
        self.most = max(self.most, progress.total)
        missing = self.most - (progress.total - progress.gone)
        if missing and self.first_missed is None:
            self.first_missed = now
        if missing and self.first_missed is not None and now - self.first_missed < _COME_BACK:
            return None
        return missing


def _left(client: Client, number: int, since: Timestamp) -> list[Node]:
    """Nodes that are not connected, were so in the minute before `since` or later, and don't hold the revision; newest first.

    Nobody waits for them: they may never come back. But an Envoy that is between two connections goes on with what it has.
    Empty also when the server does not say.
    """
    try:
        summary = _fleet(client, 1).summary
        # Those that are gone stand before those that are in sync.
        listed = _fleet(client, summary.refusing + summary.behind + summary.gone).nodes if summary.gone else ()
    except (Error, TimeoutError):
        return []
    gone = [n for n in listed if n.state == NodeState.NODE_STATE_GONE and n.held_revision < number]
    recent = [n for n in gone if n.last_seen_time.seconds >= since.seconds - _LEFT_WITHIN]
    return sorted(recent, key=lambda n: (-n.last_seen_time.seconds, -n.last_seen_time.nanos, n.name))


def _fleet(client: Client, most: int) -> WatchNodesResponse:
    """The fleet as it is, nodes that are not in sync first."""
    request = WatchNodesRequest(max_nodes=most)
    return next(client.stream(client.nodes.WatchNodes, request, timeout=_ASK_FOR), WatchNodesResponse())


def _tell_of(left: Sequence[Node], since: Timestamp) -> None:
    if not left:
        return
    names = ", ".join(f"{output.shown(n.name)} ({_away(n, since)})" for n in left[:_MOST_LEFT])
    more = f" and {len(left) - _MOST_LEFT:,} more" if len(left) > _MOST_LEFT else ""
    verb = "does" if len(left) == 1 else "do"
    line(f"Warning: {plural(len(left), 'node')} went away and {verb} not hold it: {names}{more}", "yellow")


def _away(node: Node, since: Timestamp) -> str:
    gone = node.last_seen_time
    before = (gone.seconds, gone.nanos) <= (since.seconds, since.nanos)
    return f"{output.milliseconds(gone, since)} before" if before else f"{output.milliseconds(since, gone)} after"


def _headline(revision: Revision, impact: Impact, changed: bool) -> None:
    if not changed:
        line(f"Nothing to change: revision {revision.number} is like this already.")
        return
    reason = f": {revision.reason}" if revision.reason else ""
    line(f"Revision {revision.number} by {revision.author}{reason}", "bold")
    output.changes(revision.changes, _MOST_CHANGES)
    line(f"Envoys are sent: {output.impact(impact)}")
    output.warnings(impact)


def _said(progress: RevisionProgress) -> str:
    said = f"{progress.holding:,}/{plural(progress.total, 'node')}"
    for count, word in ((progress.refused, "refused"), (progress.gone, "gone")):
        said += f", {count:,} {word}" if count else ""
    return said


def _receipt(progress: RevisionProgress, told: Container[str]) -> None:
    """Who holds it, and how the others stand but those that are `told` of elsewhere."""
    number, made = progress.revision.number, progress.revision.create_time
    if not progress.total:
        line(f"No node is connected: nothing holds revision {number} yet, and it is what the next one gets.")
        return
    took = ""
    if progress.HasField("last_ack_time"):
        took = f"; commit to last ACK {output.milliseconds(made, progress.last_ack_time)}"
    everyone = progress.holding == progress.total
    line(
        f"Held by {progress.holding:,} of {plural(progress.total, 'node')}{took}",
        "bold green" if everyone else "bold yellow",
    )
    if progress.total <= _EACH:
        for node in sorted(progress.nodes, key=lambda n: (n.hold_time.seconds, n.hold_time.nanos)):
            if node.HasField("hold_time"):
                line(f"    {output.shown(node.node)}  {output.milliseconds(made, node.hold_time)}")
    alike: dict[str, list[NodeProgress]] = {}
    for node in progress.nodes:
        if (node.state != _HOLDING or node.refused_type) and node.node not in told:
            alike.setdefault(_state(node, number), []).append(node)
    entries = list(alike.values())
    for nodes in entries[:_MAX_NAMED]:
        who, stand = output.nodes([n.node for n in nodes]), _state(nodes[0], number, many=len(nodes) > 1)
        if nodes[0].state == _HOLDING:
            line(f"    {who} {stand}", "yellow")
        else:
            line(f"    {who}  {stand}")
    # Beyond the lines, and beyond what the server listed.
    hidden = sum(map(len, entries[_MAX_NAMED:]))
    hidden += progress.total - progress.holding - sum(n.state != _HOLDING for n in progress.nodes)
    if hidden:
        line(f"    and {plural(hidden, 'node')} more; `turnout status` shows what each refuses, `turnout nodes` lists all")


def _whole(client: Client, progress: RevisionProgress) -> RevisionProgress:
    """How far it has come, with all nodes that refuse something or are behind: asked for again where the list was cut."""
    listed = progress.nodes
    if len(listed) >= progress.total or not listed or (listed[-1].state == _HOLDING and not listed[-1].refused_type):
        return progress
    request = WatchRevisionRequest(name=progress.revision.name, max_nodes=_EVERY_NODE)
    try:
        answer = next(client.stream(client.revisions.WatchRevision, request, timeout=_ASK_FOR), None)
    except (Error, TimeoutError):
        return progress
    if answer is None or not answer.progress.nodes:
        return progress
    whole = answer.progress
    # A watch that begins has not seen who went away before.
    known = {n.node for n in whole.nodes}
    gone = [n for n in listed if n.state == NodeProgressState.NODE_PROGRESS_STATE_GONE and n.node not in known]
    whole.nodes.extend(gone)
    whole.total += len(gone)
    whole.gone += len(gone)
    return whole


def _refused(node: NodeProgress) -> str:
    return output.resources(node.refused_type, node.refused_resources, 3)


def _state(node: NodeProgress, number: int, *, many: bool = False) -> str:
    """How a node stands, or `many` alike."""
    match node.state:
        case NodeProgressState.NODE_PROGRESS_STATE_HOLDING:
            since = f"since revision {node.refused_revision}"
            return f"still {'refuse' if many else 'refuses'} {_refused(node)} {since}: {output.words(node.error)}"
        case NodeProgressState.NODE_PROGRESS_STATE_REFUSED:
            since = f" of revision {node.refused_revision}, which this one needs" if node.refused_revision < number else ""
            return f"refused {_refused(node)}{since}: {output.words(node.error)}"
        case NodeProgressState.NODE_PROGRESS_STATE_GONE:
            return f"went away, holding revision {node.held_revision}"
        case _:
            have, hold = ("have", "hold") if many else ("has", "holds")
            return f"{have} not answered yet, {hold} revision {node.held_revision}"


def _why(end: Exit, number: int, progress: RevisionProgress | None, timeout: float | None) -> str:
    if end is Exit.REFUSED:
        assert progress is not None
        goes_on = "goes on with what it" if progress.refused == 1 else "go on with what they"
        return f"revision {number} is made, but {plural(progress.refused, 'node')} refused it and {goes_on} had"
    return f"revision {number} is made, but not every node holds it after {timeout:g} s; `turnout status` shows who is behind"
