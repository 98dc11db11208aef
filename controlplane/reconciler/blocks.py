"""The blocked clients: records in the store, each of which names a node id or an identity.

A block takes effect at once in this process and in all workers. It is made durable first, so a restart does not lift it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from controlplane.errors import invalid, not_found
from controlplane.store import Kind, Record, Records
from controlplane.store.records import MAX_NAME

log = structlog.get_logger("fleet")

BLOCKS = Kind("blocks", 1_000, 8_192)

# Longest reason, in characters.
MAX_REASON = 1_000


@dataclass(frozen=True, slots=True)
class Block:
    """A client that may not connect."""

    # The id of a node, or an identity.
    client: str
    reason: str
    author: str
    # Seconds since the epoch.
    time: float


class BlockKeeper:
    """All blocks."""

    def __init__(
        self, records: Records, on_change: Callable[[frozenset[str]], None], clock: Callable[[], float] = time.time
    ) -> None:
        """Keep the blocks in `records`. `on_change` is called with the blocked clients after each change."""
        self._records = records
        self._on_change = on_change
        self._clock = clock
        self._blocks: dict[str, tuple[Block, Record]] = {}

    @property
    def clients(self) -> frozenset[str]:
        """Return the blocked node ids and identities."""
        return frozenset(self._blocks)

    def all(self) -> list[Block]:
        """Return all blocks by client."""
        return [self._blocks[client][0] for client in sorted(self._blocks)]

    async def load(self) -> None:
        """Read the blocks. A record that is not valid still blocks its client. Errors: those of the store."""
        for record in await self._records.list(BLOCKS):
            self._blocks[record.name] = decode(record), record

    async def block(self, client: str, reason: str, author: str) -> Block:
        """Block a client. Errors: INVALID_ARGUMENT; RESOURCE_EXHAUSTED; those of the store."""
        if not 0 < len(client.encode()) <= MAX_NAME:
            raise invalid("client", f"is the id of a node or an identity of 1 to {MAX_NAME} bytes")
        if len(reason) > MAX_REASON:
            raise invalid("reason", f"has {len(reason):,} characters: at most {MAX_REASON:,}")
        block = Block(client, reason, author, self._clock())
        live = self._blocks.get(client)
        record = await self._records.put(BLOCKS, client, encode(block), live[1].version if live else 0)
        self._blocks[client] = block, record
        self._on_change(self.clients)
        return block

    async def unblock(self, client: str) -> None:
        """End a block. Errors: NOT_FOUND; those of the store."""
        live = self._blocks.get(client)
        if live is None:
            raise not_found(client[:200], "no block has this node id or identity; `turnout nodes blocks` lists them")
        await self._records.delete(BLOCKS, client, live[1].version)
        del self._blocks[client]
        self._on_change(self.clients)


def encode(block: Block) -> bytes:
    """Return the value of a record."""
    return json.dumps({"reason": block.reason, "author": block.author, "time": block.time}, ensure_ascii=False).encode()


def decode(record: Record) -> Block:
    """Return the block of a record. A value that is not valid gives a block without reason and author."""
    try:
        fields = json.loads(record.value)
        return Block(record.name, str(fields.get("reason", "")), str(fields.get("author", "")), float(fields.get("time", 0)))
    except (AttributeError, TypeError, ValueError):
        log.warning("the record of a block is not valid; the client stays blocked", client=record.name)
        return Block(record.name, "", "", 0.0)
