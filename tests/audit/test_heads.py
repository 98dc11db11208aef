"""The head in the store: after each revision, and compared with the log at the next start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from controlplane.audit.entries import Head, parse
from controlplane.audit.files import AuditFiles, lines, paths, unwritable
from controlplane.audit.heads import KIND, HeadKeeper, decode
from controlplane.audit.log import open_log
from controlplane.audit.verify import verify
from controlplane.errors import Error
from controlplane.store import Record, Store
from tests.store.opening import open_store
from tests.store.places import EDGE, changes, commit, draft


async def known(store: Store) -> list[Head]:
    return [head for record in await store.records.list(KIND) if (head := decode(record)) is not None]


async def start(directory: Path, store: Store, entries: int = 0) -> Head:
    """Start a server's log, write entries, and stop it."""
    log = await open_log(directory, 1_000_000)
    keeper = HeadKeeper(log, store.records)
    await keeper.start()
    for _ in range(entries):
        await log.note("call", {})
    await keeper.close()
    return log.head


async def test_the_head_is_in_the_store_after_each_revision(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "data")
    log = await open_log(tmp_path / "audit", 1_000_000)
    keeper = HeadKeeper(log, store.records)
    await keeper.start()
    assert [head.seq for head in await known(store)] == [1]
    task = asyncio.create_task(keeper.run(store.head))
    await asyncio.sleep(0)
    await log.require("attempt", {})
    await commit(store, 0, changes(EDGE), draft())
    async with asyncio.timeout(5):
        async for changed in store.records.watch(KIND):
            if any(record is not None and (head := decode(record)) and head.seq == 2 for record in changed.values()):
                break
    task.cancel()
    await log.note("call", {})
    await keeper.close()
    assert await known(store) == [log.head]
    assert log.head.seq == 3
    await store.close()


async def test_a_cut_end_is_noticed_at_the_start_and_by_the_check(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "data")
    audit = tmp_path / "audit"
    await start(audit, store, 5)
    path = paths(audit)[0]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert "entries 4 to 6 are missing" in verify(audit, await known(store)).problems[0]
    with capture_logs() as shown:
        await start(audit, store)
    assert [(line["event"], line["entries"]) for line in shown] == [("the end of the audit log is missing", 3)]
    assert "3 entries before it were missing" in verify(audit, await known(store)).problems[0]
    await store.close()


async def test_a_replaced_log_is_noticed(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "data")
    old = await start(tmp_path / "audit", store, 5)
    (tmp_path / "audit").rename(tmp_path / "aside")
    with capture_logs() as shown:
        await start(tmp_path / "audit", store)
    assert [line["event"] for line in shown] == ["the audit log was replaced: the store knows an earlier one"]
    entry = next(parse(line) for _, _, line in lines(tmp_path / "audit"))
    assert (entry["event"], entry["earlier"]) == ("begin", [f"{old.chain}:{old.seq}"])
    assert verify(tmp_path / "audit", await known(store)).problems == ()
    await store.close()


async def test_a_server_starts_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await open_store(tmp_path / "data")
    await start(tmp_path / "audit", store, 1)

    def full(*_: object, **__: object) -> None:
        raise unwritable(OSError(28, "No space left on device"), tmp_path)

    log = await open_log(tmp_path / "audit", 1_000_000)
    keeper = HeadKeeper(log, store.records)
    with monkeypatch.context() as patch:
        patch.setattr(AuditFiles, "append", full)
        await keeper.start()
        with pytest.raises(Error, match="no space left"):
            await log.require("attempt", {})
    await log.require("attempt", {})
    await keeper.close()
    assert [parse(line)["event"] for _, _, line in lines(tmp_path / "audit")] == ["begin", "call", "start", "attempt"]
    await store.close()


def test_a_record_that_is_no_head() -> None:
    assert decode(Record("x", 1, b"{}")) is None
