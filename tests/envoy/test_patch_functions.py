"""The functions of the example change what a real Envoy does with requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from controlplane.compiler import Compiler
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.ports import free_port
from controlplane.domain import Endpoint
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.patch_functions import PluginFunctions, PluginStore, installed
from controlplane.snapshot import Audience
from tests.envoy.test_body_gateway import binary
from tests.patch_functions.test_example import EXAMPLE, state_of

pytestmark = pytest.mark.envoy


@pytest.mark.parametrize("version", ["newest", "oldest"])
async def test_a_header_is_added_and_a_large_body_is_refused(tmp_path: Path, version: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    runner = web.AppRunner(web.Application(client_max_size=8 << 20))
    runner.app.router.add_post("/{path:.*}", answer)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    functions = PluginFunctions(PluginStore(tmp_path), installed(str(EXAMPLE / "team_patches.py")))
    example = state_of(functions)
    gateway = replace(example.gateways["edge"], port=free_port(), address="127.0.0.1")
    model = example.models["iris"]
    versions = tuple(replace(v, endpoints=(Endpoint("127.0.0.1", port),)) for v in model.versions)
    for split in ({"blue": 10_000}, {"green": 10_000}):
        state = State({"edge": gateway}, {"iris": replace(model, versions=versions, split=split)})
        snapshot = Compiler(functions).compile(state, NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)
        async with Envoy(static_bootstrap(snapshot), binary=binary(version)) as envoy, aiohttp.ClientSession() as session:
            await envoy.ready()
            url = f"http://127.0.0.1:{gateway.port}/v2/models/iris/infer"
            async with session.post(url, data=b"a" * 1_000) as response:
                assert (response.status, await response.text(), response.headers["x-team"]) == (200, "1000", "vision")
            async with session.post(url, data=b"a" * (2 << 20)) as response:
                assert response.status == 413
    functions.close()
    await runner.cleanup()
