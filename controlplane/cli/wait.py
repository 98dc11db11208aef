"""Waiting until the nodes hold a revision.

The server's stream WatchRevision reports the progress, and says when the revision is done: every node that counts holds it, or
with `--require connected` every connected node. This module follows the stream, also through a restart of the server.
"""

from __future__ import annotations

import time

from google.protobuf.timestamp_pb2 import Timestamp
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from controlplane.cli import output
from controlplane.cli.client import Client
from controlplane.cli.exits import Exit
from controlplane.cli.options import MAX_NODES, Requirement
from controlplane.cli.wording import plural
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.node_pb2 import Node, NodeState
from controlplane.generated.turnout.v1.node_service_pb2 import WatchNodesRequest, WatchNodesResponse
from controlplane.generated.turnout.v1.revision_pb2 import NodeProgressState, NodeRequirement, RevisionProgress
from controlplane.generated.turnout.v1.revision_service_pb2 import WatchRevisionRequest

REQUIREMENTS = {
    Requirement.KNOWN: NodeRequirement.NODE_REQUIREMENT_KNOWN,
    Requirement.CONNECTED: NodeRequirement.NODE_REQUIREMENT_CONNECTED,
}

# Nodes that the server lists in each report while the command waits.
_WATCHED_NODES = 100
# Seconds between two attempts to follow the revision.
_RECONNECT_EVERY = 0.3
# Seconds that a node which lost its stream gets to come back. Envoy reconnects within 5.
_RECONNECT_TIME = 10.0
# A node that disconnected at most so many seconds before the revision may be between two streams.
_RECENT = 60
# Seconds that one question about the fleet may take.
_ASK_TIMEOUT = 5.0


def wait_for(
    client: Client, number: int, timeout: float, connected: int = 0, require: Requirement = Requirement.KNOWN
) -> tuple[RevisionProgress | None, Exit]:
    """Follow a revision until one of four things happens.

    The revision is done; or no node is behind and at least one refused it; or the only missing nodes are gone, and one of
    them is not released in time; or `timeout` seconds have passed. `connected` is the number of nodes that were connected when
    the revision was made. Return the last progress (None if the server reported none) and the exit code.
    """
    deadline = time.monotonic() + timeout
    request = WatchRevisionRequest(name=f"revisions/{number}", max_nodes=_WATCHED_NODES, require=REQUIREMENTS[require])
    absence = Absence(connected) if require is Requirement.CONNECTED else None
    waiting = Waiting(deadline, absence)
    with _progress_bar() as bar:
        task = bar.add_task(str(number), total=None, counts="")
        try:
            while (remaining := waiting.until - time.monotonic()) > 0:
                try:
                    for answer in client.stream(client.revisions.WatchRevision, request, timeout=remaining):
                        _advance(bar, task, answer.progress)
                        until = waiting.until
                        code = waiting.after(answer.progress, time.monotonic(), time.time())
                        if code is not None:
                            return answer.progress, code
                        if waiting.until != until:
                            break  # follow it again, for a shorter time
                except TimeoutError:
                    break
                except Error as error:
                    if error.code is not Code.UNAVAILABLE:
                        raise
                # The stream ended because nodes are still missing, or because the server went away. Follow it again.
                time.sleep(max(0.0, min(_RECONNECT_EVERY, waiting.until - time.monotonic())))
        except KeyboardInterrupt:
            output.notice(f"Revision {number} was made. Only the waiting was interrupted.")
            raise
    progress = waiting.progress
    return progress, Exit.TIMEOUT if progress is None or progress.behind else Exit.INCOMPLETE


class Waiting:
    """Decides how long a command waits."""

    def __init__(self, deadline: float, absence: Absence | None) -> None:
        """Wait until `deadline` at most. `absence` is None if all known nodes must hold the revision."""
        # The time at which the command stops waiting. It is before `deadline` while the only missing nodes are gone.
        self.until = deadline
        # None before the first progress.
        self.progress: RevisionProgress | None = None
        self._deadline = deadline
        self._absence = absence

    def after(self, progress: RevisionProgress, now: float, wall_time: float) -> Exit | None:
        """Return the exit code if a progress ends the wait. `now` is monotonic, `wall_time` seconds since the epoch."""
        self.progress = progress
        missing = self._absence.missing(progress, now) if self._absence is not None else 0
        if progress.complete and missing is not None:
            if missing:
                output.notice(f"{plural(missing, 'node')} disconnected and stayed away for {_RECONNECT_TIME:g} s")
            return Exit.OK
        if progress.refused and not progress.behind:
            return Exit.REFUSED
        if self._absence is None and self._only_gone(progress, wall_time + self._deadline - now):
            # They get some time to come back. The time runs from the first such progress on.
            self.until = min(self.until, now + _RECONNECT_TIME)
        else:
            self.until = self._deadline
        return None

    def _only_gone(self, progress: RevisionProgress, wall_deadline: float) -> bool:
        """Return True if nodes that are gone are the only obstacle, and one of them is not released before the deadline."""
        gone = [n for n in progress.nodes if n.state == NodeProgressState.NODE_PROGRESS_STATE_GONE]
        too_few = any(e.counted < e.expected for e in progress.expected)
        return (
            not progress.behind
            and not progress.refused
            and not too_few
            and any(n.release_time.seconds > wall_deadline for n in gone)
        )


class Absence:
    """Counts the nodes that disconnected while the command waits only for connected nodes.

    All nodes of a server disconnect when it stops, and a server that has just started knows no node. Both report a revision
    as complete although no node holds it. So nodes that disconnected get some time to come back.
    """

    def __init__(self, connected: int = 0) -> None:
        self._most_connected = connected
        # Time at which a node was missing first; None as long as none was.
        self._since: float | None = None

    def missing(self, progress: RevisionProgress, now: float) -> int | None:
        """Return how many nodes stayed away, or None while they may still come back."""
        self._most_connected = max(self._most_connected, progress.total)
        missing = self._most_connected - (progress.total - progress.gone)
        if not missing:
            return 0
        if self._since is None:
            self._since = now
        return None if now - self._since < _RECONNECT_TIME else missing


def disconnected_nodes(client: Client, number: int, since: Timestamp) -> list[Node]:
    """Return nodes that disconnected shortly before `since`, or later, and don't hold the revision; newest first.

    With `--require connected` the command does not wait for them. But an Envoy between two streams still uses its old
    configuration. Empty also if the server does not answer.
    """
    try:
        summary = _fleet(client, 1).summary
        # Nodes that are gone come before those in sync, so this limit reaches all of them.
        nodes = _fleet(client, summary.refusing + summary.behind + summary.gone).nodes if summary.gone else ()
    except (Error, TimeoutError):
        return []
    gone = [n for n in nodes if n.state == NodeState.NODE_STATE_GONE and n.held_revision < number]
    recent = [n for n in gone if n.disconnect_time.seconds >= since.seconds - _RECENT]
    return sorted(recent, key=lambda n: (-n.disconnect_time.seconds, -n.disconnect_time.nanos, n.name))


def with_all_nodes(client: Client, progress: RevisionProgress, require: Requirement) -> RevisionProgress:
    """Return the progress with every node that refused something or is behind; ask again if the server's list was cut."""
    listed = progress.nodes
    holding = NodeProgressState.NODE_PROGRESS_STATE_HOLDING
    # Refusing nodes come first and holding ones last: a list that ends with a holding node is long enough.
    all_nodes = progress.total + progress.released
    if len(listed) >= all_nodes or not listed or (listed[-1].state == holding and not listed[-1].refused_type):
        return progress
    request = WatchRevisionRequest(name=progress.revision.name, max_nodes=MAX_NODES, require=REQUIREMENTS[require])
    try:
        answer = next(client.stream(client.revisions.WatchRevision, request, timeout=_ASK_TIMEOUT), None)
    except (Error, TimeoutError):
        return progress
    if answer is None or not answer.progress.nodes:
        return progress
    full = answer.progress
    # A new watch of connected nodes does not know which nodes disconnected before it began.
    present = {n.node for n in full.nodes}
    gone = [n for n in listed if n.state == NodeProgressState.NODE_PROGRESS_STATE_GONE and n.node not in present]
    full.nodes.extend(gone)
    full.total += len(gone)
    full.gone += len(gone)
    return full


def _fleet(client: Client, max_nodes: int) -> WatchNodesResponse:
    """Return the fleet now, nodes that are not in sync first."""
    request = WatchNodesRequest(max_nodes=max_nodes)
    return next(client.stream(client.nodes.WatchNodes, request, timeout=_ASK_TIMEOUT), WatchNodesResponse())


def _progress_bar() -> Progress:
    console = output.err()
    columns = (
        TextColumn("revision {task.description}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _advance(bar: Progress, task: TaskID, progress: RevisionProgress) -> None:
    counts = f"{progress.holding:,}/{plural(progress.total, 'node')}"
    for count, word in ((progress.refused, "refused"), (progress.gone, "gone")):
        counts += f", {count:,} {word}" if count else ""
    bar.update(task, total=max(progress.total, 1), completed=progress.holding, counts=counts)
