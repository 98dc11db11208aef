"""A process that writes is killed (SIGKILL) at random moments. Every acknowledged revision and record must still be there."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.store.opening import open_store
from tests.store.writing import PROGRESS, pair


def run_until_killed(directory: Path, delay: float) -> int:
    """Start a writer, kill it `delay` seconds after it opened the store, and return the last number that it printed."""
    command = [sys.executable, "-m", "tests.store.writing", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        opened = process.stdout.readline().split()
        assert opened[:1] == ["open"]
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().split("\n")
        process.wait()
    # The last line may be cut off. A complete line ends with a newline.
    return int(lines[-2]) if len(lines) > 1 else int(opened[1])


async def survey(directory: Path, acknowledged: int, checked: int) -> int:
    """Open the store after a kill, check everything after revision `checked`, and return the newest number."""
    store = await open_store(directory)
    newest = store.head.value.number
    assert newest >= acknowledged, "an acknowledged revision is lost"
    assert newest <= acknowledged + 1, "more than one write was in progress"
    numbers = list(range(newest, checked, -1))
    revisions = await store.revisions(newest + 1, newest - checked)
    assert [r.number for r in revisions] == numbers
    for revision in revisions:
        number = revision.number
        assert {n: new for n, (_, new) in revision.changes.items()} == pair(number)
        assert {n: old for n, (old, _) in revision.changes.items()} == (
            pair(number - 1) if number > 1 else dict.fromkeys(pair(1))
        )
        assert revision.draft.reason == "r" * (number % 5_000)
        remembered = await store.recall(f"id-{number}")
        assert remembered is not None
        assert remembered.revision == number
    assert await store.recall(f"id-{newest + 1}") is None
    if newest:
        assert {f"gateways/{n}": g for n, g in store.head.value.state.gateways.items()} == pair(newest)
    record = await store.records.get(PROGRESS, "progress")
    progress = int(record.value) if record else 0
    assert progress in (newest - 1, newest), "the record names neither the newest revision nor the one before"
    assert progress >= acknowledged, "an acknowledged record is lost"
    await store.close()
    return newest


def campaign(directory: Path, kills: int, seed: int) -> int:
    rng = random.Random(seed)
    newest = 0
    for _ in range(kills):
        acknowledged = run_until_killed(directory, rng.uniform(0, 0.12))
        newest = asyncio.run(survey(directory, acknowledged, newest))
    return newest


def test_no_acknowledged_write_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    assert campaign(tmp_path, 15, seed=1) > 15


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_no_acknowledged_write_is_lost_in_hundreds_of_kills(tmp_path: Path) -> None:
    newest = campaign(tmp_path, 500, seed=random.randrange(2**32))
    print(f"500 kills, {newest} revisions")  # noqa: T201
    assert newest > 500
