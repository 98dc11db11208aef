"""The load's process: progress while it runs, records when it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from controlplane.demo.callers import drive
from controlplane.demo.lean import LeanServer
from controlplane.demo.load import ROW


def spec(port: int, passes: int) -> dict[str, object]:
    groups = [
        {"host": "127.0.0.1", "port": port, "path": "/x", "name": "one"},
        {"host": "127.0.0.1", "port": port, "path": "/x?seconds=0.05", "name": "two", "connections": 1},
    ]
    return {"groups": groups, "users": 20, "passes": passes, "first_user": 0}


async def test_all_passes_are_recorded(tmp_path: Path) -> None:
    async with LeanServer(["blue"]) as server:
        await drive(spec(server.ports["blue"], passes=3), tmp_path)
    head, _, rows = (tmp_path / "records").read_bytes().partition(b"\n")
    assert json.loads(head) == {"versions": ["blue"], "groups": ["one", "two"], "failures": []}
    users = [row[3] for row in ROW.iter_unpack(rows)]
    assert sorted(users) == sorted([*range(20)] * 3)


async def test_a_signal_ends_the_process_with_records(tmp_path: Path) -> None:
    async with LeanServer(["blue"]) as server:
        (tmp_path / "spec.json").write_text(json.dumps(spec(server.ports["blue"], passes=0)))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "controlplane.demo.callers", str(tmp_path / "spec.json")
        )
        async with asyncio.timeout(30):
            while True:
                if (tmp_path / "status.json").exists():
                    break
                await asyncio.sleep(0.02)
            assert json.loads((tmp_path / "status.json").read_text())["blue"] > 0
            assert not (tmp_path / "records").exists()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    assert (tmp_path / "records").stat().st_size > ROW.size
