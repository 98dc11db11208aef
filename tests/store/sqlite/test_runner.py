"""The runner: one write at a time, completed even if its caller is cancelled, and none while an outcome is in doubt."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from controlplane.errors import Code, Error
from controlplane.store.sqlite.file import InDoubt, SqliteFile
from controlplane.store.sqlite.runner import FileRunner

BROKEN = Error(Code.UNAVAILABLE, "STORE_IO", "the disk fails")


class File:
    """A file that records its calls. `settle` fails while `broken` is set."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken = False

    def settle(self) -> None:
        if self.broken:
            raise BROKEN
        self.calls.append("settle")

    def close(self) -> None:
        self.calls.append("close")


class Runner(FileRunner):
    """A runner of a `File`."""

    def __init__(self, file: File) -> None:
        super().__init__(cast("SqliteFile", file), ThreadPoolExecutor(1))


def doubtful(file: SqliteFile) -> None:
    """Raise the error of a failed COMMIT."""
    raise InDoubt(BROKEN)


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch) -> File:
    monkeypatch.setattr(SqliteFile, "settle", File.settle)
    monkeypatch.setattr(SqliteFile, "close", File.close)
    return File()


async def test_only_one_write_runs_at_a_time(file: File) -> None:
    runner = Runner(file)
    steps: list[str] = []

    async def step(name: str) -> None:
        steps.append(f"{name} begins")
        await runner.read(lambda _: None)
        steps.append(f"{name} ends")

    await asyncio.gather(*(runner.exclusively(lambda name=name: step(name)) for name in "ab"))  # type: ignore[misc]
    assert steps == ["a begins", "a ends", "b begins", "b ends"]
    await runner.close()
    assert file.calls == ["close"]


async def test_a_write_is_completed_when_its_caller_is_cancelled(file: File) -> None:
    runner = Runner(file)
    caller = asyncio.create_task(runner.write(lambda _: file.calls.append("written")))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await runner.close()
    assert file.calls == ["written", "close"]


async def test_the_next_write_first_settles_a_write_in_doubt(file: File) -> None:
    runner = Runner(file)

    async def callback() -> None:
        file.calls.append("callback")

    runner.on_settled.append(callback)
    with pytest.raises(Error) as caught:
        await runner.write(doubtful)
    assert caught.value is BROKEN
    file.broken = True
    with pytest.raises(Error):
        await runner.write(lambda _: file.calls.append("written"))
    assert file.calls == []
    file.broken = False
    await runner.write(lambda _: file.calls.append("written"))
    await runner.write(lambda _: file.calls.append("written"))
    assert file.calls == ["settle", "callback", "written", "written"]
    await runner.close()


async def test_a_step_can_settle_its_own_write_in_doubt(file: File) -> None:
    runner = Runner(file)

    async def step() -> str:
        with pytest.raises(InDoubt):
            await runner.commit(doubtful)
        return await runner.settle(lambda _: "known")

    assert await runner.exclusively(step) == "known"
    await runner.write(lambda _: file.calls.append("written"))
    assert file.calls == ["settle", "written"]
    await runner.close()
