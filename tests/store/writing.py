"""A process that writes revisions and records until it is killed, and prints the number of each acknowledged revision.

Its argument is the store's directory. Each revision sets the port of two gateways to its own number, so that a test would
notice half a revision. After each revision the process writes its number to a record, with the fence of a lease.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from controlplane.domain import Gateway
from controlplane.domain.revision import Action, Draft
from controlplane.domain.state import Changes
from controlplane.store import Kind, Record
from tests.store.opening import open_store
from tests.store.places import commit

PROGRESS = Kind("progress", max_records=1, max_bytes=100)


def pair(number: int) -> dict[str, Gateway]:
    """Return the two gateways as revision `number` sets them."""
    return {f"gateways/{n}": Gateway(n, 1 + number % 60_000, address) for n, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"))}


async def main(directory: Path) -> None:
    store = await open_store(directory)
    # The lease expires at once, so that the next process can acquire it.
    lease = await store.leases.acquire("writer", str(os.getpid()), seconds=0.001, now=time.time())
    record = await store.records.get(PROGRESS, "progress")

    async def record_progress() -> Record:
        value = str(store.head.value.number).encode()
        return await store.records.put(PROGRESS, "progress", value, record.version if record else 0, fence=lease.fence)

    record = await record_progress()
    os.write(1, f"open {store.head.value.number}\n".encode())
    while True:
        number = store.head.value.number + 1
        draft = Draft("child", "r" * (number % 5_000), Action.APPLY, float(number), 0, f"id-{number}", "digest")
        head = await commit(store, number - 1, Changes(pair(number)), draft)
        record = await record_progress()
        os.write(1, f"{head.number}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
