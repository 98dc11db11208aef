"""A process that writes revisions until it is killed, and says which ones it was told are made. Run with a directory.

Each revision sets the port of two gateways to its own number, so that half a revision would show.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from controlplane.domain import Gateway
from controlplane.domain.revision import Action, Draft
from controlplane.domain.state import Changes
from tests.store.contract import commit
from tests.store.opening import open_store


def pair(number: int) -> dict[str, Gateway]:
    """What revision `number` makes of the two gateways."""
    return {f"gateways/{n}": Gateway(n, 1 + number % 60_000, address) for n, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"))}


async def main(directory: Path) -> None:
    store = await open_store(directory)
    os.write(1, f"open {store.head.value.number}\n".encode())
    while True:
        number = store.head.value.number + 1
        draft = Draft("child", "r" * (number % 5_000), Action.APPLY, float(number), 0, f"id-{number}", "digest")
        head = await commit(store, number - 1, Changes(pair(number)), draft)
        os.write(1, f"{head.number}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
