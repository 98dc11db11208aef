"""The attacker, a process: `python -m tests.attacks.attacker PORT`. Each line of its input is an `Order`, in JSON.

It prints `ready` when it attacks, and what happened when it has ended.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from controlplane.http2.frames import GOAWAY, HEADER, HEADER_BYTES
from tests.attacks.attack import Attack
from tests.attacks.frames import FRAMES
from tests.attacks.messages import MESSAGES

ATTACKS = {attack.name: attack for attack in (*FRAMES, *MESSAGES)}


class Order(NamedTuple):
    """An attack, and how it is made."""

    name: str
    connections: int
    seconds: float
    # The addresses of the attacker, which its connections use in turn.
    sources: tuple[str, ...] = ("127.0.0.1",)


class Connection:
    """One connection, which is opened again when the server closes it."""

    def __init__(self, attack: Attack, number: int, port: int, source: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
        self.sock.setblocking(False)
        self._reads = attack.reads
        self._unsent = memoryview(attack.opening())
        self._chunks: Iterator[bytes] = attack.chunks(number)
        self._received = bytearray()
        # The error code of the server's GOAWAY.
        self.goaway: int | None = None
        self.sent = 0
        # The last chunk was sent.
        self.done = False

    def write(self) -> None:
        """Send as much as the socket takes."""
        for _ in range(8):
            if not self._unsent:
                chunk = next(self._chunks, None)
                self.done = chunk is None
                if chunk is None:
                    return
                self._unsent = memoryview(chunk)
            count = self.sock.send(self._unsent)
            self.sent += count
            self._unsent = self._unsent[count:]

    def read(self) -> bool:
        """Read, and note GOAWAY. Return False at the end of the connection."""
        if not self._reads:
            return True
        received = self.sock.recv(1 << 18)
        self._received += received
        while len(self._received) >= HEADER_BYTES:
            high, low, kind, _, _ = HEADER.unpack_from(self._received)
            end = HEADER_BYTES + (high << 8 | low)
            if len(self._received) < end:
                break
            if kind == GOAWAY:
                self.goaway = int.from_bytes(self._received[HEADER_BYTES + 4 : HEADER_BYTES + 8], "big")
            del self._received[:end]
        return bool(received)


def attack(order: Order, port: int) -> dict[str, object]:
    """Attack. Return what happened: the connections, what the server said at their ends, and bytes."""
    kind, selector, opened, sent = ATTACKS[order.name], selectors.DefaultSelector(), 0, 0
    ends: Counter[str] = Counter()
    end = time.monotonic() + order.seconds
    missing, sources = order.connections, itertools.cycle(order.sources)
    print("ready", flush=True)
    while time.monotonic() < end:
        while missing:
            try:
                connection = Connection(kind, opened, port, next(sources))
            except OSError:
                ends["refused"] += 1
                time.sleep(0.05)
                break
            opened, missing = opened + 1, missing - 1
            selector.register(connection.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
        for key, events in selector.select(0.1):
            one: Connection = key.data
            alive = True
            try:
                if events & selectors.EVENT_WRITE:
                    one.write()
                if events & selectors.EVENT_READ:
                    alive = one.read()
                if one.done or not kind.reads:
                    wanted = (selectors.EVENT_READ if kind.reads else 0) | (0 if one.done else selectors.EVENT_WRITE)
                    selector.modify(one.sock, wanted or selectors.EVENT_READ, one)
                    if not wanted or (one.done and not kind.reads):
                        time.sleep(0.01)
            except BlockingIOError:
                pass
            except OSError:
                alive = False
            if not alive:
                ends["closed" if one.goaway is None else f"GOAWAY {one.goaway}"] += 1
                sent += one.sent
                selector.unregister(one.sock)
                one.sock.close()
                missing += 1
                time.sleep(0.002)
    for key in list(selector.get_map().values()):
        sent += key.data.sent
        key.data.sock.close()
    selector.close()
    return {"connections": opened, "ends": dict(ends), "mb": round(sent / 1e6, 1)}


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        os.nice(10)  # an attacker has a machine of its own
    for line in sys.stdin:
        print(json.dumps(attack(Order(*json.loads(line)), int(sys.argv[1]))), flush=True)
