"""Real model servers in their own environments, each with a model of a few lines that answers with its version."""

from __future__ import annotations

import asyncio
import json
import os
import platform
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import aiohttp

from controlplane.demo.ports import free_port
from controlplane.demo.process import Process
from tests.sdks.environments import sdk_python

_MODELS = Path(__file__).parent / "models"


@asynccontextmanager
async def mlserver(version: str, directory: Path) -> AsyncIterator[tuple[int, int]]:
    """Run MLServer. Yield its port for HTTP and its port for gRPC."""
    http, grpc = free_port(), free_port()
    # Streams need neither metrics nor gzip, as MLServer's documentation says.
    settings = {"metrics_endpoint": None, "gzip_enabled": False, "parallel_workers": 0}
    ports = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc}
    model = {"name": "iris", "implementation": "mlserver_iris.Iris", "parameters": {"version": version}}
    files = {
        "settings.json": json.dumps({**settings, **ports}),
        "model-settings.json": json.dumps(model),
        "mlserver_iris.py": (_MODELS / "mlserver_iris.py").read_text(),
    }
    _write(directory, files)
    start = "from mlserver.cli import main; main()"
    command = [sdk_python("mlserver"), "-c", start, "start", str(directory)]
    async with _running("MLServer", command, directory, f"http://127.0.0.1:{http}/v2/models/iris/ready"):
        yield http, grpc


@asynccontextmanager
async def kserve_server(version: str, directory: Path) -> AsyncIterator[tuple[int, int]]:
    """Run KServe's server. Yield its port for HTTP and its port for gRPC."""
    http, grpc = free_port(), free_port()
    _write(directory, {})
    command = [sdk_python("kserve"), str(_MODELS / "kserve_iris.py"), version, str(http), str(grpc)]
    async with _running("KServe's server", command, directory, f"http://127.0.0.1:{http}/v2/models/iris/ready"):
        yield http, grpc


@asynccontextmanager
async def mlflow_server(version: str, directory: Path) -> AsyncIterator[int]:
    """Run MLflow's scoring server as `mlflow models serve` runs it. Yield its port."""
    port = free_port()
    flavor = {"loader_module": "mlflow_iris", "code": "code", "data": "version", "python_version": platform.python_version()}
    files = {
        "MLmodel": json.dumps({"flavors": {"python_function": flavor}}),  # it is YAML
        "version": version,
        "code/mlflow_iris.py": (_MODELS / "mlflow_iris.py").read_text(),
    }
    _write(directory, files)
    uvicorn = ["-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "mlflow.pyfunc.scoring_server.app:app"]
    command = [sdk_python("mlflow"), *uvicorn]
    variables = {"__pyfunc_model_path__": str(directory)}
    async with _running("MLflow's scoring server", command, directory, f"http://127.0.0.1:{port}/ping", variables):
        yield port


def _write(directory: Path, files: Mapping[str, str]) -> None:
    """Make a server's directory with these files."""
    directory.mkdir()
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)


@asynccontextmanager
async def _running(
    name: str, command: Sequence[str], directory: Path, url: str, variables: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[None]:
    """Run a server, and wait until `url` answers with 200. `variables` are more of its environment."""
    process = Process(name, command, directory / "log", {**os.environ, **variables})
    await process.start()
    try:
        async with asyncio.timeout(90), aiohttp.ClientSession() as session:
            while not await _answers(session, url):
                process.check()
                await asyncio.sleep(0.1)
        yield
    finally:
        await process.kill()


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
