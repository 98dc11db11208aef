"""Remembers the known nodes in the store, and releases those that stay away.

Once a second, three things happen: nodes that were away for too long are released, in a new hour every connected node is noted
as seen, and at most one batch of records is written. So an ACK or a NACK never causes a write by itself.

A record is a JSON object of the fields of `RememberedNode`. Its name is the id of the node. While the store can't write, only
the ids of the changed nodes are kept in memory.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import structlog

from controlplane.domain import Locality
from controlplane.errors import Error
from controlplane.fleet import MAX_REMEMBERED, Fleet, Node, RememberedNode
from controlplane.fleet.membership import remembered
from controlplane.snapshot import Client
from controlplane.store import Kind, Record, Records, RecordWrite

log = structlog.get_logger("fleet")

NODES = Kind("nodes", MAX_REMEMBERED, 8_192)

# Seconds between two batches, and after a batch that could not be written.
INTERVAL, RETRY_INTERVAL = 1.0, 10.0
# Largest number of records in one batch.
BATCH = 1_000


class MemberKeeper:
    """Keeps the records of the known nodes up to date, and releases nodes in time."""

    def __init__(
        self,
        fleet: Fleet,
        records: Records,
        on_change: Callable[[Sequence[Node], float], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the members of `fleet` in `records`.

        `on_change` is called after nodes were released or forgotten, with the released nodes and the time. `clock` returns
        seconds since the epoch.
        """
        self._fleet = fleet
        self._records = records
        self._on_change = on_change
        self._clock = clock
        # The records as they are in the store, by the id of the node.
        self._saved: dict[str, Record] = {}
        self._saving = asyncio.Lock()
        # False once the control plane stops. It then closes all streams itself, so nodes that disconnect are not released.
        self._open = True
        # The hour in which every connected node is noted as seen.
        self._hour = 0

    async def load(self) -> None:
        """Restore the nodes that an earlier process remembered. Errors: those of the store."""
        nodes = []
        for record in await self._records.list(NODES):
            self._saved[record.name] = record
            try:
                nodes.append(decode(record))
            except (KeyError, TypeError, ValueError):
                log.warning("remembered node ignored: its record is not valid", node=record.name)
        now = self._clock()
        self._hour = int(now // 3600)
        self._fleet.members.restore(nodes, now)

    async def run(self) -> None:
        """Release nodes and write records, until cancelled."""
        pause = INTERVAL
        while True:
            await asyncio.sleep(pause)
            self.release()
            pause = INTERVAL
            try:
                await self.save()
            except Error as error:
                pause = RETRY_INTERVAL
                log.warning("nodes not remembered yet", nodes=len(self._fleet.members.unsaved), error=error.message)

    def release(self) -> None:
        """Release the nodes whose time has come, and note the connected ones as seen in a new hour."""
        now, members = self._clock(), self._fleet.members
        if not self._open:
            return
        if released := members.release(now):
            self._on_change(released, now)
        members.drop_released(now)
        if self._hour != (hour := int(now // 3600)):
            self._hour = hour
            members.note_hour()

    async def close(self) -> None:
        """Release nobody any more, and write what is pending. If the store can't write, log that."""
        self._open = False
        try:
            while self._fleet.members.unsaved:
                await self.save()
        except Error as error:
            log.warning("nodes not remembered", nodes=len(self._fleet.members.unsaved), error=error.message)

    async def forget(self, ids: Iterable[str]) -> None:
        """Forget nodes that are not connected, also in the store. Errors: UNAVAILABLE; then the store forgets them later."""
        self._fleet.members.forget(ids)
        self._on_change((), self._clock())
        while self._fleet.members.unsaved:
            await self.save()

    async def save(self) -> None:
        """Write one batch of the records that are out of date. Errors: those of the store; the changes are then kept."""
        async with self._saving:
            unsaved = self._fleet.members.unsaved
            ids = list(islice(unsaved, BATCH))
            for node_id in ids:
                del unsaved[node_id]
            writes = [write for node_id in ids if (write := self._write_of(node_id)) is not None]
            if not writes:
                return
            try:
                outcomes = await self._records.write(NODES, writes)
                for write, outcome in zip(writes, outcomes, strict=True):
                    await self._note(write.name, outcome)
            except (Error, asyncio.CancelledError):
                unsaved.update(dict.fromkeys(ids))
                raise

    def _write_of(self, node_id: str) -> RecordWrite | None:
        """Return the write that brings a node's record up to date, or None if it is up to date."""
        node, saved = self._fleet.nodes.get(node_id), self._saved.get(node_id)
        value = encode(remembered(node, self._clock())) if node is not None and node.known else None
        if value == (saved.value if saved is not None else None):
            return None
        return RecordWrite(node_id, value, saved.version if saved is not None else 0)

    async def _note(self, node_id: str, outcome: Record | Error | None) -> None:
        """Note the outcome of a write. If somebody else has changed the record, write it again in the next batch."""
        if isinstance(outcome, Error) and outcome.reason == "RECORD_CHANGED":
            outcome = await self._records.get(NODES, node_id)
            self._fleet.members.unsaved[node_id] = None
        if isinstance(outcome, Error):
            log.warning("node not remembered", node=node_id, error=outcome.message)
        elif outcome is not None:
            self._saved[node_id] = outcome
        else:
            self._saved.pop(node_id, None)


def encode(node: RememberedNode) -> bytes:
    """Return the value of a node's record."""
    locality = node.locality
    fields = {
        "cluster": node.cluster,
        "region": locality.region,
        "zone": locality.zone,
        "sub_zone": locality.sub_zone,
        "client": node.client.value,
        "first_seen": node.first_seen,
        "last_seen_hour": node.last_seen_hour,
        "identity": node.identity,
        "shared_identity": node.shared_identity or "",
    }
    return json.dumps({name: value for name, value in fields.items() if value != ""}, ensure_ascii=False).encode()


def decode(record: Record) -> RememberedNode:
    """Return the node of a record. Fields of a newer version are ignored. Errors: KeyError, TypeError, ValueError."""
    fields = json.loads(record.value)
    if not isinstance(fields, dict):
        raise TypeError("not an object")
    texts = {name: str(fields.get(name, "")) for name in ("cluster", "region", "zone", "sub_zone")}
    return RememberedNode(
        record.name,
        texts["cluster"],
        Locality(texts["region"], texts["zone"], texts["sub_zone"]),
        Client(fields["client"]),
        int(fields["first_seen"]),
        int(fields["last_seen_hour"]),
        str(fields.get("identity", "")),
        bool(fields.get("shared_identity")),
    )
