"""Values as people read them: shares, times, counts, lists of names, and texts that clients wrote."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.cli.output import LAYOUT
from controlplane.errors import escaped

# Longest part of a client's id or text in a table, and of a resource name, which a client may have invented. Characters.
_MAX_TEXT, _MAX_NAME = 60, 200
# The API lists at most so many resource names of one refusal.
_MAX_REFUSED_NAMES = 100
# Nodes that a line names before it counts the others.
_FIRST_NODES = 3


def share(basis_points: int) -> str:
    """Return `100%`, `12.5%`, `0.01%`."""
    return f"{basis_points / 100:.2f}".rstrip("0").rstrip(".") + "%"


def split(shares: Mapping[str, int]) -> str:
    """Return `blue 90%, green 10%`, the largest share first."""
    return ", ".join(f"{v} {share(s)}" for v, s in sorted(shares.items(), key=lambda p: -p[1]) if s) or "nobody"


def when(stamp: Timestamp) -> str:
    """Return the local time to the second; empty if unset."""
    if not stamp.seconds:
        return ""
    return datetime.fromtimestamp(stamp.seconds).astimezone().isoformat(" ", "seconds")[:19]


def ago(stamp: Timestamp) -> str:
    """Return the time since then: `12s`, `5m`, `3h`, `2d`; empty if unset."""
    if not stamp.seconds:
        return ""
    seconds = max(0, int(time.time() - stamp.seconds))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def milliseconds(earlier: Timestamp, later: Timestamp) -> str:
    """Return the time between two stamps: `7.2 ms`, `350 ms`, `1.25 s`."""
    ms = (later.seconds - earlier.seconds) * 1e3 + (later.nanos - earlier.nanos) / 1e6
    if ms < 1000:
        return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"
    return f"{ms / 1e3:.2f} s"


def plural(count: int, noun: str) -> str:
    """Return `1 node`, `3 nodes`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def enum_word(enum: Any, value: int, prefix: str) -> str:
    """Return an enum value's name as a word: `ACTION_SWITCH` is `switch`."""
    return str(enum.Name(value)).removeprefix(prefix).lower() if value in enum.values() else str(value)


def clip(text: str, limit: int = _MAX_TEXT) -> str:
    """Return a client's id or text on one line: escaped, and cut to `limit` characters."""
    text = escaped(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def indented(text: str) -> str:
    """Return a client's text, escaped; its second and further lines are indented, so that none looks like ours."""
    return escaped(text.strip(), LAYOUT).replace("\n", "\n    ")


def first_few(texts: Sequence[str], limit: int, at_least: str = "") -> str:
    """Return the first `limit` texts and the number of the others: `a, b, c and 997 more`."""
    more = f" and {at_least}{len(texts) - limit:,} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more


def resources(kind: str, names: Sequence[str], limit: int = 1) -> str:
    """Return resources of one type on one line. A client may have invented the type and the names."""
    # The API cuts its list of names, so the real number may be larger.
    at_least = "at least " if len(names) >= _MAX_REFUSED_NAMES else ""
    return f"{clip(kind)} {first_few([clip(name, _MAX_NAME) for name in names], limit, at_least)}"


def node_list(names: Sequence[str]) -> str:
    """Return a few nodes by name, many as `1,000 nodes (nodes/a, nodes/b, nodes/c and 997 more)`."""
    named = first_few([clip(name) for name in names], _FIRST_NODES)
    return named if len(names) <= _FIRST_NODES else f"{plural(len(names), 'node')} ({named})"


def revision_of(etag: str) -> str:
    """Return the number of the revision in an etag. Etags of servers before 2026-11-29 are the number itself."""
    return etag.rpartition("-")[2]
