"""Compare what the demo promises with the record of every request. Without I/O, so tests can use invented records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.demo.load import Records

# Envoy ACKs routes when its main thread has posted them to its workers, and does not wait for these. A worker takes the routes
# before it reads more from its connections, usually within a millisecond. On a machine without a free CPU it may be stopped
# between two connections, and then read the second one with the old routes. A request that starts within this time after the
# ACK may therefore reach the old version. Seconds.
HANDOVER = 0.05

# Group of the requests whose answers stream for longer than a switch takes.
STREAMS = "streams"

_AFTER = f"more than {HANDOVER * 1e3:.0f} ms after the last ACK"


@dataclass(frozen=True, slots=True)
class Move:
    """One switch or undo, as the command line reported it. Times are seconds since the epoch."""

    command: str
    old: str
    new: str
    revision: int
    nodes: int  # nodes that ACKed
    commit: float
    last_ack: float
    # Share of test pictures that the new version reads correctly, 0 to 1; None if it was not measured.
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A move, and the requests around it."""

    move: Move
    before: Mapping[str, int]  # requests that started after the previous move and before this commit, by version
    between: Mapping[str, int]  # requests that started between the commit and the last ACK
    after: Mapping[str, int]  # requests that started between the last ACK and the next commit
    late: int  # started more than HANDOVER after the last ACK, and the old version answered; no later move explains it
    outlived: int  # complete answers that began on the old version and ended after the last ACK
    failed: int  # failed requests among all of these


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of the demo."""

    nodes: int
    users: int
    requests: int
    failed: int
    failures: Sequence[str]
    lines: Sequence[Line]
    # A sentence for each promise that was not kept; empty if all were.
    broken: Sequence[str] = field(default_factory=tuple)

    def as_json(self) -> dict[str, Any]:
        """Return the receipt for programs. Durations are in seconds."""
        return {
            "kept": not self.broken,
            "broken": list(self.broken),
            "nodes": self.nodes,
            "users": self.users,
            "requests": self.requests,
            "failed": self.failed,
            "failures": list(self.failures),
            "moves": [
                {
                    "command": line.move.command,
                    "revision": line.move.revision,
                    "nodesAcked": line.move.nodes,
                    "commitToLastAck": round(line.move.last_ack - line.move.commit, 6),
                    "requestsBefore": dict(line.before),
                    "requestsBetween": dict(line.between),
                    "requestsAfter": dict(line.after),
                    "lateToOldVersion": line.late,
                    "streamsThatOutlivedIt": line.outlived,
                    "failed": line.failed,
                    "accuracyAfter": line.move.accuracy,
                }
                for line in self.lines
            ],
        }


def judge(moves: Sequence[Move], records: Records, nodes: int, users: int) -> Receipt:
    """Check the promises: every node ACKs, no request fails, and none that starts after HANDOVER reaches the old version."""
    lines = [_line(moves, i, records) for i in range(len(moves))]
    broken: list[str] = []
    for line in lines:
        move, name = line.move, f"`{line.move.command}`"
        if move.nodes != nodes:
            broken.append(f"{name}: {move.nodes} of {nodes} nodes ACKed revision {move.revision}")
        if line.late:
            broken.append(f"{name}: {line.late} requests that started {_AFTER} reached {move.old}")
        for when, counts, version in (("before", line.before, move.old), ("after", line.after, move.new)):
            if not counts.get(version):
                broken.append(f"{name}: no request reached {version} {when} it, so it proves nothing")
        if not line.outlived:
            broken.append(f"{name}: no streaming answer outlived it, so it proves nothing about them")
        if wrong := line.before.keys() - {move.old}:
            broken.append(f"{name}: requests before it reached {', '.join(sorted(wrong))}")
    if failed := records.failed:
        broken.append(f"{failed} of {len(records.requests)} requests failed, the first: {records.failures[0]}")
    if not moves:
        broken.append("no traffic was moved")
    callers = len({r.user for r in records.requests})
    if callers < users:
        broken.append(f"only {callers} of {users} users sent requests")
    return Receipt(nodes, users, len(records.requests), failed, records.failures, lines, broken)


def _line(moves: Sequence[Move], i: int, records: Records) -> Line:
    move = moves[i]
    start = moves[i - 1].last_ack + HANDOVER if i else 0.0
    end = moves[i + 1].commit if i + 1 < len(moves) else float("inf")
    before, between, after = Counter[str](), Counter[str](), Counter[str]()
    late = outlived = failed = 0
    for r in records.requests:
        if not start <= r.start < end:
            continue
        if r.version is None:
            failed += 1
            continue
        if r.start < move.commit:
            # A request that was routed after the commit may have reached either version.
            (before if r.head < move.commit else between)[r.version] += 1
        elif r.start < move.last_ack:
            between[r.version] += 1
        else:
            after[r.version] += 1
            late += r.version != move.new and r.start >= move.last_ack + HANDOVER and r.head < end
        outlived += r.group == STREAMS and r.version == move.old and r.end > move.last_ack and r.start < move.commit
    return Line(move, before, between, after, late, outlived, failed)
