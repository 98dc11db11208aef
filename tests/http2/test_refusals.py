"""The counts and the log of refused connections."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controlplane.http2 import refusals
from controlplane.http2.refusals import LogLines, Refusals


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    error = info


async def test_each_is_counted_and_few_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_PERIOD", 0.2)
    log = Log()
    closed = Refusals(LogLines(log))
    for n in range(1_000):
        closed.add("too many frames", f"192.0.2.1:{n}", "text")
    closed.add("idle", "192.0.2.2:1", "text")
    assert closed.counts == {"too many frames": 1_000, "idle": 1}
    assert len(log.lines) == 10
    await asyncio.sleep(0.25)
    closed.add("idle", "192.0.2.2:2", "text")
    assert log.lines[-1] == ("connection closed: idle", {"peer": "192.0.2.2:2", "error": "text", "without_a_line": 991})
