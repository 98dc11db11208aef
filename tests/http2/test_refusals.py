"""The counts and the log of refused connections."""

from __future__ import annotations

from typing import Any

from controlplane.http2.refusals import Refusals


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    error = info


def test_each_is_counted_and_few_are_logged() -> None:
    log = Log()
    refusals = Refusals(log)
    for n in range(1_000):
        refusals.add("too many frames", f"192.0.2.1:{n}", "text", 100.0)
    refusals.add("idle", "192.0.2.2:1", "text", 100.0)
    assert refusals.counts == {"too many frames": 1_000, "idle": 1}
    assert len(log.lines) == 10
    refusals.add("idle", "192.0.2.2:2", "text", 161.0)
    assert log.lines[-1] == ("connection closed: idle", {"peer": "192.0.2.2:2", "error": "text", "without_a_line": 991})
