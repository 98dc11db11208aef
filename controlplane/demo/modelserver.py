"""A model server that speaks the Open Inference Protocol v2 over HTTP.

    python -m controlplane.demo.modelserver blue --port 8001     trains the model, listens, and prints its address

Each answer names the version in `model_version` and in a header.
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
    """The server's process, as its parent uses it."""

    def __init__(self, version: str, seed: int = 1) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="turnout-model-")
        self._file = Path(self._temporary.name) / "port"
        self.version = version
        options = ["--seed", str(seed), "--port-file", str(self._file)]
        command = [sys.executable, "-m", "controlplane.demo.modelserver", version, *options]
        self.process = Process(f"the {version} model server", command, Path(self._temporary.name) / "log")
        # 0 until it is ready.
        self.port = 0

    async def start(self) -> None:
        """Start it without waiting for it."""
        await self.process.start()

    async def ready(self, seconds: float = 60.0) -> None:
        """Wait until it is trained and listens. Errors: UNAVAILABLE if it ends or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not self._file.exists():
            self.process.check()
            if time.monotonic() > deadline:
                raise Error(Code.UNAVAILABLE, "NOT_READY", f"{self.process.name} did not start within {seconds:g} s")
            await asyncio.sleep(0.02)
        self.port = int(self._file.read_text())

    async def close(self) -> None:
        """Kill it."""
        await self.process.kill()
        self._temporary.cleanup()


# ------------------------------------------------------------------------------------------------- inside the process


class InferenceService:
    """The Open Inference Protocol for one version of the model; `classifier` is scikit-learn's."""

    def __init__(self, version: str, classifier: Any) -> None:
        self.version = version
        self.classifier = classifier
        self.headers = {VERSION_HEADER: version}

    async def live(self, request: web.Request) -> web.Response:
        return self._answer({"live": True})

    async def server(self, request: web.Request) -> web.Response:
        return self._answer({"name": "turnout-demo", "version": "1", "extensions": []})

    async def ready(self, request: web.Request) -> web.Response:
        if "name" in request.match_info and (refusal := self._refusal(request)):
            return refusal
        return self._answer({"name": models.NAME, "ready": True})

    async def metadata(self, request: web.Request) -> web.Response:
        return self._refusal(request) or self._answer(
            {
                "name": models.NAME,
                "versions": [self.version],
                "platform": "sklearn",
                "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, models.PIXELS]}],
                "outputs": [{"name": "digit", "datatype": "INT64", "shape": [-1]}],
            }
        )

    async def infer(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request):
            return refusal
        try:
            body = await request.json()
            rows = tensor(body)
        except (ValueError, Error) as error:
            return self._answer({"error": str(error)}, 400)
        digits = self.classifier.predict(rows).tolist()
        output = {"name": "digit", "datatype": "INT64", "shape": [len(digits)], "data": digits}
        result = {"model_name": models.NAME, "model_version": self.version, "outputs": [output]}
        return self._answer(result | ({"id": body["id"]} if "id" in body else {}))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Stream an answer for `?seconds=N`: one line of JSON every 50 ms."""
        response = web.StreamResponse(headers=self.headers | {"content-type": "application/x-ndjson"})
        await response.prepare(request)
        ticks = max(1, min(12_000, round(float(request.query.get("seconds", "1")) / 0.05)))
        for i in range(ticks):
            await response.write(json.dumps({"model_version": self.version, "index": i}).encode() + b"\n")
            await asyncio.sleep(0.05)
        await response.write_eof()
        return response

    def _answer(self, value: dict[str, Any], status: int = 200) -> web.Response:
        # The newline keeps a terminal readable after `curl`.
        return web.json_response(text=json.dumps(value) + "\n", status=status, headers=self.headers)

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Return a 404 if the request is for another model or version, otherwise None."""
        name, version = request.match_info["name"], request.match_info.get("version", self.version)
        if (name, version) == (models.NAME, self.version):
            return None
        return self._answer({"error": f"this server has model {models.NAME}, version {self.version}"}, 404)


def application(version: str, classifier: Any) -> web.Application:
    """Return the web application for one version of the model."""
    service = InferenceService(version, classifier)
    app = web.Application(client_max_size=32 * 2**20)
    app.router.add_get("/v2", service.server)
    app.router.add_get("/v2/health/live", service.live)
    app.router.add_get("/v2/health/ready", service.ready)
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        app.router.add_get(path, service.metadata)
        app.router.add_get(path + "/ready", service.ready)
        app.router.add_post(path + "/infer", service.infer)
        app.router.add_post(path + "/stream", service.stream)
    return app


def tensor(body: Any) -> Any:
    """Return the rows of an inference request as an array of (rows, pixels). Errors: INVALID_ARGUMENT with the field."""
    inputs = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise invalid("inputs", "must be one tensor")
    pixels = inputs[0]
    shape = pixels.get("shape")
    if not isinstance(shape, list) or len(shape) != 2 or shape[1] != models.PIXELS or not 0 < shape[0] <= _MAX_ROWS:
        raise invalid("inputs[0].shape", f"must be [rows, {models.PIXELS}], with 1 to {_MAX_ROWS} rows")
    try:
        rows = np.asarray(pixels.get("data"), dtype=np.float32)
    except (TypeError, ValueError):
        raise invalid("inputs[0].data", "must be numbers") from None
    if rows.size != shape[0] * shape[1] or not np.isfinite(rows).all():
        raise invalid("inputs[0].data", f"must be {shape[0] * shape[1]} finite numbers")
    return rows.reshape(shape)


def request(rows: Any) -> dict[str, Any]:
    """Return an inference request for pictures, an array of (rows, pixels)."""
    flat = [round(float(x), 3) for x in np.asarray(rows).ravel()]
    return {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [len(rows), models.PIXELS], "data": flat}]}


async def _serve(version: str, seed: int, port: int, port_file: Path | None) -> None:
    runner = web.AppRunner(application(version, models.train(version, seed)), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    port = runner.addresses[0][1]
    if port_file is not None:
        new_file = port_file.with_suffix(".new")
        new_file.write_text(str(port))
        os.replace(new_file, port_file)
    else:
        sys.stdout.write(f"version {version}: {models.KIND[version]}, at 127.0.0.1:{port}\n")
        sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> int:
    """Serve until Ctrl-C. Return the exit code."""
    parser = argparse.ArgumentParser(description="A model server for trying Turnout. Its model reads pictures of digits.")
    parser.add_argument("version", choices=models.VERSIONS, help="the version to train and serve")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; default: any free port")
    parser.add_argument("--seed", type=int, default=1, help="seed of the training; default: 1")
    parser.add_argument("--port-file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        asyncio.run(_serve(options.version, options.seed, options.port, options.port_file))
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        sys.stderr.write(f"can't listen on 127.0.0.1:{options.port}: {error.strerror or error}\n")
        return 6
    return 0


if __name__ == "__main__":
    sys.exit(main())
