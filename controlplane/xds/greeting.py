"""A first request says at length who the client is; most of it thousands of others say in the same words.

An Envoy lists all its extensions: 60 KB, of which its id is a few. So who has been met is remembered by the bytes of its
first request without the id, and who comes after it is known by them:

    tag, length   tag, length, id   the rest of the node   the rest of the request
    └────────── looked at ────────┘ └─────────── compared, not parsed ───────────┘

It comes to what parsing comes to: serialised messages, put one after another, are the message that has all of their fields,
the last of a field that is there twice. So the rest of the node must have no id, and that of the request no node; which is
found out once, when it is noted. What is written in another order is parsed.

Bounds: `MOST` bytes, those noted first go first. Where each client is another, nothing is noted after the first few.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from envoy.config.core.v3 import base_pb2
from google.protobuf.message import DecodeError

from controlplane.xds.events import Identified
from controlplane.xds.node import identified

# Remembered at most, bytes; and of one first request.
MOST = 4 * 1024 * 1024
_LARGEST = 128 * 1024
# Compared with each other, at most: first requests whose parts are of the same lengths.
_ALIKE = 16
# So many are noted without anybody being known by one; each that is allows one more.
_TRIES = 32
# Of a node's id, its first field.
_ID = 0x0A


class Known(NamedTuple):
    """Somebody whose like was met before."""

    who: Identified
    # The node as it was said; good until the next one is met.
    node: Any
    # The request without the node, serialised.
    rest: bytes


class _Noted(NamedTuple):
    # The request from after the id.
    tail: bytes
    node: Any
    like: Identified
    rest: bytes


class Greetings:
    """First requests of one kind: `tag` is what comes before the node in `request`, a message type."""

    def __init__(self, tag: int, request: Any) -> None:
        self._tag, self._request = tag, request
        # By the length of the rest of the node, and of that and the rest of the request.
        self._noted: dict[tuple[int, int], list[_Noted]] = {}
        self._order: deque[tuple[int, int]] = deque()
        self._bytes = 0
        self._tries = _TRIES

    def meet(self, data: bytes) -> Known | None:
        """Who makes this first request; None: it has to be parsed."""
        begins, ends, after = self._id(data)
        for noted in self._noted.get((after, len(data) - ends), ()):
            if data.endswith(noted.tail):
                try:
                    name = data[begins:ends].decode()
                except UnicodeDecodeError:
                    return None
                self._tries = min(_TRIES, self._tries + 1)
                like, noted.node.id = noted.like, name
                who = Identified(name, like.cluster, like.metadata, like.user_agent, like.locality)
                return Known(who, noted.node, noted.rest)
        return None

    def note(self, data: bytes, request: Any) -> None:
        """Remembers a first request that had to be parsed, which has come to this."""
        begins, ends, after = self._id(data)
        if not self._tries or not ends or len(data) - ends > _LARGEST:
            return
        self._tries -= 1
        tail, rest = data[ends:], data[ends + after :]
        try:
            node = base_pb2.Node.FromString(tail[:after])
            if node.id or request.node.id.encode() != data[begins:ends] or self._request.FromString(rest).HasField("node"):
                return
        except DecodeError:
            return
        key = after, len(tail)
        alike = self._noted.setdefault(key, [])
        alike.append(_Noted(tail, node, identified(request.node), rest))
        self._order.append(key)
        self._bytes += len(tail) + len(rest)
        if len(alike) > _ALIKE:
            self._order.remove(key)
            self._drop(key)
        while self._bytes > MOST:
            self._drop(self._order.popleft())

    def _drop(self, key: tuple[int, int]) -> None:
        old = self._noted[key].pop(0)
        self._bytes -= len(old.tail) + len(old.rest)
        if not self._noted[key]:
            del self._noted[key]

    def _id(self, data: bytes) -> tuple[int, int, int]:
        """Where the id begins and ends, and how much of the node comes after it; zeros where that is not so simple."""
        if len(data) < 8 or data[0] != self._tag:
            return 0, 0, 0
        at, size = 2, data[1]
        if size >= 0x80:
            at, size = 3, size & 0x7F | data[2] << 7
            if data[2] >= 0x80:
                at, size = 4, size & 0x3FFF | data[3] << 14
        begins = at + 2
        length = data[begins - 1]
        ends, after = begins + length, size - 2 - length
        if data[at] != _ID or not 0 < length < 0x80 or after < 0 or ends + after > len(data) or (at == 4 and data[3] >= 0x80):
            return 0, 0, 0
        return begins, ends, after
