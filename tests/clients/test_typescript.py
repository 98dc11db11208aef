"""A client in TypeScript, generated from the protos, against a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.api.plane import serving
from tests.clients.generated import copied, generate
from tests.clients.program import output_of
from tests.tools import npm_modules, program, run


@pytest.fixture(scope="module")
def client() -> Path:
    """Return the client's program, type-checked and compiled from code that was generated now."""
    program("node", "the client in TypeScript is not tested")
    folder = copied("typescript")
    npm_modules(folder)
    programs = folder / "node_modules" / ".bin"
    generate(programs / "protoc-gen-es", folder / "gen", "target=ts", "import_extension=js", annotations=True)
    run([str(programs / "tsc"), "--project", "tsconfig.json"], folder)
    return folder / "dist" / "client.js"


@pytest.mark.timeout(300)
async def test_the_client_lists_models_and_moves_traffic(client: Path, tmp_path: Path) -> None:
    node = program("node", "the client in TypeScript is not tested")
    async with serving(tmp_path) as plane:
        output = await output_of(node, str(client), f"127.0.0.1:{plane.app.api_port}", "models/iris", "green")
        assert json.loads(output) == {"models": ["models/iris"], "revision": 2, "complete": True, "error": "Aborted"}
