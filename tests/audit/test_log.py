"""The log of a server: changes wait for the disk, outcomes don't, strangers are sampled, and exports may fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from controlplane.audit.entries import parse
from controlplane.audit.files import AuditFiles, lines, paths, unwritable
from controlplane.audit.log import STRANGERS, AuditLog, open_log
from controlplane.errors import Error


def entries(directory: Path) -> list[dict[str, Any]]:
    return [parse(line) for _, _, line in lines(directory)]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_ten_strangers_in_a_minute_have_entries_and_the_others_are_counted(tmp_path: Path) -> None:
    log = await open_log(tmp_path, 1_000_000)
    clock = log._clock = Clock()
    for number in range(100):
        await log.note_stranger({"call": str(number)})
    clock.now += 60
    await log.note_stranger({"call": "next"})
    await log.close()
    written = entries(tmp_path)
    assert [entry["call"] for entry in written] == [*map(str, range(STRANGERS)), "next"]
    assert [entry.get("unlogged", 0) for entry in written] == [0] * STRANGERS + [100 - STRANGERS]


async def test_a_full_disk_refuses_changes_and_outcomes_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await open_log(tmp_path, 1_000_000)

    def full(*_: Any, **__: Any) -> None:
        raise unwritable(OSError(28, "No space left on device"), tmp_path)

    with monkeypatch.context() as patch, capture_logs() as shown:
        patch.setattr(AuditFiles, "append", full)
        with pytest.raises(Error, match="there is no space left for the audit log") as caught:
            await log.require("attempt", {})
        assert caught.value.reason == "AUDIT_FULL"
        await log.note("call", {"call": "made"})
        with pytest.raises(Error):
            await log.require("attempt", {})
    assert [line["event"] for line in shown] == ["an entry waits"]
    await log.require("attempt", {"call": "next"})
    await log.close()
    assert [(entry["event"], entry["call"]) for entry in entries(tmp_path)] == [("call", "made"), ("attempt", "next")]


async def test_an_export_that_fails_delays_nothing_and_is_logged_once_in_a_minute(tmp_path: Path) -> None:
    class Failing:
        sent = 0

        def send(self, line: bytes, entry: dict[str, Any]) -> None:
            self.sent += 1
            raise OSError("no route to host")

    failing = Failing()
    log = await open_log(tmp_path, 1_000_000, failing)
    with capture_logs() as shown:
        for _ in range(3):
            await log.require("attempt", {})
    assert ([line["event"] for line in shown], failing.sent) == (["entries are not exported"], 3)
    await log.close()
    assert len(entries(tmp_path)) == 3


async def test_entries_are_exported_as_they_are_in_the_log(tmp_path: Path) -> None:
    sent: list[bytes] = []

    class Kept:
        def send(self, line: bytes, entry: dict[str, Any]) -> None:
            sent.append(line)

    log: AuditLog = await open_log(tmp_path, 1_000_000, Kept())
    await log.require("attempt", {"identity": "user:anna"})
    await log.note("call", {"identity": "user:anna"})
    await log.close()
    assert b"".join(sent) == paths(tmp_path)[0].read_bytes()
