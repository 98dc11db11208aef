"""A model server that speaks the Open Inference Protocol v2 over HTTP.

    python -m controlplane.demo.modelserver blue --port 8001     trains, listens, and says so

Which version answered stands in the answer's `model_version` and in a header.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from controlplane.demo import models
from controlplane.demo.load import VERSION_HEADER
from controlplane.demo.process import Process
from controlplane.errors import Code, Error, invalid

_MAX_ROWS = 10_000


class ModelServer:
    """The process, seen from the outside."""

    def __init__(self, version: str, seed: int = 1) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="turnout-model-")
        self._file = Path(self._temporary.name) / "port"
        self.version = version
        options = ["--seed", str(seed), "--port-file", str(self._file)]
        command = [sys.executable, "-m", "controlplane.demo.modelserver", version, *options]
        self.process = Process(f"the {version} model server", command, Path(self._temporary.name) / "log")
        # 0 before it is ready.
        self.port = 0

    async def start(self) -> None:
        """Starts it, and waits for nothing."""
        await self.process.start()

    async def ready(self, seconds: float = 60.0) -> None:
        """Waits until it is trained and listens. Errors: UNAVAILABLE when it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not self._file.exists():
            self.process.check()
            if time.monotonic() > deadline:
                raise Error(Code.UNAVAILABLE, "NOT_READY", f"{self.process.name} did not start within {seconds:g} s")
            await asyncio.sleep(0.02)
        self.port = int(self._file.read_text())

    async def close(self) -> None:
        """Ends it."""
        await self.process.kill()
        self._temporary.cleanup()


# ------------------------------------------------------------------------------------------------- inside the process


def application(version: str, classifier: Any) -> web.Application:
    """The protocol around one version of the model; `classifier` is scikit-learn's."""
    headers = {VERSION_HEADER: version}

    def answer(value: dict[str, Any], status: int = 200) -> web.Response:
        return web.json_response(value, status=status, headers=headers)

    def unknown(request: web.Request) -> web.Response | None:
        """What is said to a request for another model or version; None when it is for this one."""
        name, asked = request.match_info["name"], request.match_info.get("version", version)
        if (name, asked) == (models.NAME, version):
            return None
        return answer({"error": f"this server has model {models.NAME}, version {version}"}, 404)

    async def live(request: web.Request) -> web.Response:
        return answer({"live": True})

    async def server(request: web.Request) -> web.Response:
        return answer({"name": "turnout-demo", "version": "1", "extensions": []})

    async def ready(request: web.Request) -> web.Response:
        if "name" in request.match_info and (refused := unknown(request)):
            return refused
        return answer({"name": models.NAME, "ready": True})

    async def metadata(request: web.Request) -> web.Response:
        return unknown(request) or answer(
            {
                "name": models.NAME,
                "versions": [version],
                "platform": "sklearn",
                "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, models.PIXELS]}],
                "outputs": [{"name": "digit", "datatype": "INT64", "shape": [-1]}],
            }
        )

    async def infer(request: web.Request) -> web.Response:
        if refused := unknown(request):
            return refused
        try:
            asked = await request.json()
            rows = tensor(asked)
        except (ValueError, Error) as error:
            return answer({"error": str(error)}, 400)
        digits = classifier.predict(rows).tolist()
        output = {"name": "digit", "datatype": "INT64", "shape": [len(digits)], "data": digits}
        made = {"model_name": models.NAME, "model_version": version, "outputs": [output]}
        return answer(made | ({"id": asked["id"]} if "id" in asked else {}))

    async def slowly(request: web.Request) -> web.StreamResponse:
        """Like `infer` of one picture after the other, a line each: an answer that streams for `?seconds=N`."""
        response = web.StreamResponse(headers=headers | {"content-type": "application/x-ndjson"})
        await response.prepare(request)
        ticks = max(1, min(12_000, round(float(request.query.get("seconds", "1")) / 0.05)))
        for i in range(ticks):
            await response.write(json.dumps({"model_version": version, "index": i}).encode() + b"\n")
            await asyncio.sleep(0.05)
        await response.write_eof()
        return response

    app = web.Application(client_max_size=32 * 2**20)
    app.router.add_get("/v2", server)
    app.router.add_get("/v2/health/live", live)
    app.router.add_get("/v2/health/ready", ready)
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        app.router.add_get(path, metadata)
        app.router.add_get(path + "/ready", ready)
        app.router.add_post(path + "/infer", infer)
        app.router.add_post(path + "/stream", slowly)
    return app


def tensor(asked: Any) -> Any:
    """The rows of an inference request, as an array of (rows, pixels). Errors: INVALID_ARGUMENT naming the field."""
    inputs = asked.get("inputs") if isinstance(asked, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise invalid("inputs", "must be one tensor")
    given = inputs[0]
    shape = given.get("shape")
    if not isinstance(shape, list) or len(shape) != 2 or shape[1] != models.PIXELS or not 0 < shape[0] <= _MAX_ROWS:
        raise invalid("inputs[0].shape", f"must be [rows, {models.PIXELS}], with 1 to {_MAX_ROWS} rows")
    try:
        rows = np.asarray(given.get("data"), dtype=np.float32)
    except (TypeError, ValueError):
        raise invalid("inputs[0].data", "must be numbers") from None
    if rows.size != shape[0] * shape[1] or not np.isfinite(rows).all():
        raise invalid("inputs[0].data", f"must be {shape[0] * shape[1]} finite numbers")
    return rows.reshape(shape)


def request(rows: Any) -> dict[str, Any]:
    """An inference request for pictures, an array of (rows, pixels)."""
    flat = [round(float(x), 3) for x in np.asarray(rows).ravel()]
    return {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [len(rows), models.PIXELS], "data": flat}]}


async def _serve(version: str, seed: int, port: int, port_file: Path | None) -> None:
    runner = web.AppRunner(application(version, models.train(version, seed)), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    port = runner.addresses[0][1]
    if port_file is not None:
        fresh = port_file.with_suffix(".new")
        fresh.write_text(str(port))
        os.replace(fresh, port_file)
    else:
        sys.stdout.write(f"version {version}: {models.WHAT[version]}, at 127.0.0.1:{port}\n")
        sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> int:
    """Serves until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A model server for trials: it reads pictures of digits.")
    parser.add_argument("version", choices=models.VERSIONS, help="which of the two trained models")
    parser.add_argument("--port", type=int, default=0, help="where to listen on 127.0.0.1; default: any free port")
    parser.add_argument("--seed", type=int, default=1, help="of the training; default: 1")
    parser.add_argument("--port-file", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    try:
        asyncio.run(_serve(asked.version, asked.seed, asked.port, asked.port_file))
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        sys.stderr.write(f"can't listen on 127.0.0.1:{asked.port}: {error.strerror or error}\n")
        return 6
    return 0


if __name__ == "__main__":
    sys.exit(main())
