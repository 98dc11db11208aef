"""The load's process: connections that send requests, each slot in a closed loop.

    python -m controlplane.demo.callers DIR/spec.json

The process writes its progress to DIR/status.json. On SIGTERM, or after the last pass, it writes DIR/records and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from controlplane.demo.driver import Driver
from controlplane.demo.http1_caller import Http1
from controlplane.demo.http2_caller import Http2

# Seconds between two reports of the progress.
_REPORT_EVERY = 0.1


async def drive(spec: dict[str, Any], directory: Path) -> None:
    """Run the load that `spec` describes, as `load.Load` writes it, until it ends or a signal stops it."""
    driver = Driver(spec)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, driver.stopping.set)
    for index, group in enumerate(driver.groups):
        kind = Http2 if group.http2 else Http1
        for slot in range(group.connections):
            driver.background(kind(driver, index, slot).connect())
    driver.background(_report_progress(driver, directory))
    await driver.drained()
    driver.write(directory / "records.new")
    os.replace(directory / "records.new", directory / "records")


async def _report_progress(driver: Driver, directory: Path) -> None:
    status, new_status = directory / "status.json", directory / "status.new"
    while True:
        if driver.counts:
            new_status.write_text(json.dumps(driver.counts))
            os.replace(new_status, status)
        await asyncio.sleep(_REPORT_EVERY)


if __name__ == "__main__":
    spec_file = Path(sys.argv[1])
    asyncio.run(drive(json.loads(spec_file.read_text()), spec_file.parent))
