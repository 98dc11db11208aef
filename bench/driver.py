"""An operator of another checkout's Turnout. `compare.py` runs this file with that checkout's Python, and drives it by JSON.

    PYTHON bench/driver.py MODELS ENDPOINTS '{"blue": PORT, "green": PORT}' [FLAG …]     in the folder of the checkout

It uses the checkout's own `bench/rig.py`, so the server and its client always speak the same version of the API. It starts
`turnout serve` with the flags, applies so many models, and prints `{"pid": …, "port": …}`. Then each line
`{"cmd": "move", "model": …, "version": …}` moves a model's traffic. It ends the server when its input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib import import_module
from pathlib import Path


async def main(models: int, endpoints: int, ports: dict[str, int], flags: list[str]) -> None:
    """Serve until the input ends."""
    turnout = import_module("bench.rig").Turnout
    async with turnout.serve(*flags) as server:
        await server.apply([f"model-{i}" for i in range(models)], ports, endpoints=endpoints)
        _answer({"pid": server.process.pid, "port": server.xds_port})
        while line := await asyncio.to_thread(sys.stdin.readline):
            request = json.loads(line)
            try:
                await server.move(request["model"], request["version"])
                _answer({})
            except Exception as error:  # noqa: BLE001 -- the caller reports it, whatever it is
                _answer({"error": str(error)})


def _answer(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Not this file's folder but the checkout's: its `bench` and `controlplane` are meant.
    sys.path[0] = str(Path.cwd())
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:]))
