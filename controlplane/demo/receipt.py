"""What the demo promised, held against the record of every request. No I/O, so that it can be tried with made-up records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.demo.load import Records

STREAMS = "streams"  # group of the requests whose answers stream for longer than a switch takes


@dataclass(frozen=True, slots=True)
class Move:
    """One switch or undo, as the command line reported it. Times are seconds since the epoch."""

    command: str
    old: str
    new: str
    revision: int
    nodes: int  # that ACKed
    commit: float
    last_ack: float
    # Right answers among the test pictures, 0 to 1, of the version that answered afterwards; None when not tried.
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A move, and what users saw of it."""

    move: Move
    before: Mapping[str, int]  # requests that started before the commit, back to the last ACK before it, by version
    between: Mapping[str, int]  # that started after the commit and before the last ACK
    after: Mapping[str, int]  # that started after the last ACK, up to the next commit
    late: int  # of those, how many the old version answered, though no later move explains it
    outlived: int  # answers that began on the old version and went on streaming past the last ACK, whole
    failed: int  # of all the requests named here


@dataclass(frozen=True, slots=True)
class Receipt:
    """The whole of it."""

    nodes: int
    users: int
    requests: int
    failed: int
    failures: Sequence[str]
    lines: Sequence[Line]
    # What was promised and did not hold, in sentences; empty: all held.
    broken: Sequence[str] = field(default_factory=tuple)

    def as_json(self) -> dict[str, Any]:
        """For programs; durations in seconds."""
        return {
            "held": not self.broken,
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
                    "nodes_acked": line.move.nodes,
                    "commit_to_last_ack": round(line.move.last_ack - line.move.commit, 6),
                    "requests_before": dict(line.before),
                    "requests_between": dict(line.between),
                    "requests_after": dict(line.after),
                    "late_to_old_version": line.late,
                    "streams_that_outlived_it": line.outlived,
                    "failed": line.failed,
                    "accuracy_after": line.move.accuracy,
                }
                for line in self.lines
            ],
        }


def judge(moves: Sequence[Move], records: Records, nodes: int, users: int) -> Receipt:
    """Holds the promises against the records: every node ACKs, nothing fails, and no user is late."""
    lines = [_line(moves, i, records) for i in range(len(moves))]
    broken: list[str] = []
    for line in lines:
        move, name = line.move, f"`{line.move.command}`"
        if move.nodes != nodes:
            broken.append(f"{name}: {move.nodes} of {nodes} nodes ACKed revision {move.revision}")
        if line.late:
            broken.append(f"{name}: {line.late} requests that started after the last ACK reached {move.old}")
        for when, counts, version in (("before", line.before, move.old), ("after", line.after, move.new)):
            if not counts.get(version):
                broken.append(f"{name}: no request reached {version} {when} it, so it shows nothing")
        if not line.outlived:
            broken.append(f"{name}: no streaming answer outlived it, so it shows nothing of them")
        if wrong := line.before.keys() - {move.old}:
            broken.append(f"{name}: requests before it reached {', '.join(sorted(wrong))}")
    if failed := records.failed:
        broken.append(f"{failed} of {len(records.requests)} requests failed, the first: {records.failures[0]}")
    if not moves:
        broken.append("nothing was moved")
    callers = len({r.user for r in records.requests})
    if callers < users:
        broken.append(f"only {callers} of {users} users called")
    return Receipt(nodes, users, len(records.requests), failed, records.failures, lines, broken)


def _line(moves: Sequence[Move], i: int, records: Records) -> Line:
    move = moves[i]
    start = moves[i - 1].last_ack if i else 0.0
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
            # What was routed after the commit may have reached either, and is not counted as before it.
            (before if r.head < move.commit else between)[r.version] += 1
        elif r.start < move.last_ack:
            between[r.version] += 1
        else:
            after[r.version] += 1
            late += r.version != move.new and r.head < end
        outlived += r.group == STREAMS and r.version == move.old and r.end > move.last_ack and r.start < move.commit
    return Line(move, before, between, after, late, outlived, failed)
