"""A client in Go, generated from the protos, against a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.api.plane import serving
from tests.clients.generated import ROOT, copied, generate
from tests.clients.program import output_of
from tests.tools import go_tool, program, run

MODULE = "turnout.dev/gen"
PLUGINS = ("google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc")


@pytest.fixture(scope="module")
def client() -> Path:
    """Return the client's program, built from code that was generated now."""
    go = program("go", "the client in Go is not tested")
    folder = copied("go")
    for plugin in PLUGINS:
        tool = go_tool(folder, plugin, ROOT / "build" / "tools" / plugin.rpartition("/")[2])
        generate(tool, folder, f"module={MODULE}")
    run([go, "vet", "./..."], folder)
    run([go, "build", "-o", "dist/client", "./client"], folder)
    return folder / "dist" / "client"


@pytest.mark.timeout(300)
async def test_the_client_lists_models_and_moves_traffic(client: Path, tmp_path: Path) -> None:
    async with serving(tmp_path) as plane:
        output = await output_of(str(client), f"127.0.0.1:{plane.app.api_port}", "models/iris", "green")
        assert json.loads(output) == {"models": ["models/iris"], "revision": 2, "complete": True, "error": "STALE_ETAG"}
