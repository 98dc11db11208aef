"""Keys in a real Envoy: which requests find which model, and that the keys that are refused never match."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from controlplane.compiler import Compiler
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.domain import HeaderRouting, HostRouting, Model, PathRouting
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.snapshot import Audience
from tests.envoy.test_compiled import edge, versions

pytestmark = pytest.mark.envoy

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"

# By gateway: (path, value of x-model, host), and the model that answers; "" for none.
REQUESTS = {
    "by-path": {
        ("/v2/models/llama3.1:8b/infer", "", ""): "colon",
        ("/v2/models/llama3.1:8b:predict", "", ""): "colon",
        # As Python's `quote` and JavaScript's `encodeURIComponent` write it.
        ("/v2/models/llama3.1%3A8b/infer", "", ""): "colon",
        ("/v2/models/llama3.1%3A8b:predict", "", ""): "colon",
        ("/v2/models/llama3.1/infer", "", ""): "",
        # The base URL of a client may end with a slash.
        ("//v2/models/iris/infer", "", ""): "iris",
        ("/v2//models///iris//infer?x=//", "", ""): "iris",
        ("/v2/models/%69ris/infer", "", ""): "iris",
        ("/v2/models/a/../iris/infer", "", ""): "iris",
        # Path parameters belong to the segment, and capital letters make another name.
        ("/v2/models/iris;v=1/infer", "", ""): "",
        ("/v2/models/Iris/infer", "", ""): "",
        ("/v2/models/iris.example.com./infer", "", ""): "dot",
        # Keys that are refused on such a gateway.
        ("/v2/models/../infer", "", ""): "",
        ("/v2/models/meta-llama/Llama-3.1-8B-Instruct/infer", "", ""): "",
        ("/v2/models/meta-llama%2FLlama-3.1-8B-Instruct/infer", "", ""): "",
    },
    "by-header": {
        ("/", LLAMA, ""): "slash",
        ("/", LLAMA.lower(), ""): "",
        ("/", "llama3.1:8b", ""): "colon",
        ("/", "llama3.1%3A8b", ""): "",
        ("/", "llama3.1", ""): "",
        ("/", "..", ""): "dots",
        ("//v1//chat", "iris", ""): "iris",
    },
    "by-host": {
        ("/", "", "iris.example.com"): "host",
        ("/", "", "IRIS.Example.com:8080"): "host",
        ("/", "", "iris.example.com."): "host",
        ("/", "", "WINE.example.com"): "",
        ("/", "", "iris"): "iris",
        # A key that is refused on such a gateway.
        ("/", "", ".."): "",
    },
}


async def test_requests_find_their_model(tmp_path: Path) -> None:
    ups, (v1,) = await versions("v1")
    gateways = [edge("by-path"), edge("by-header", HeaderRouting("x-model")), edge("by-host", HostRouting())]
    keys = {
        "iris": ("iris",),
        "host": ("iris.example.com",),
        "colon": ("llama3.1:8b",),
        "slash": (LLAMA,),
        "dot": ("iris.example.com.",),
        "dots": ("..",),
    }
    every = tuple(g.name for g in gateways)
    models = {
        name: Model(name, every, (v1,), {"v1": 10_000}, keys=k, rewrite=None, preview_header="") for name, k in keys.items()
    }
    # Not `applied`, so that the keys that would be refused are there, too.
    state = State({g.name: g for g in gateways}, models)
    snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience(tuple(sorted(every))), 1)
    async with Envoy(static_bootstrap(snapshot), directory=tmp_path) as envoy, aiohttp.ClientSession() as session:
        await envoy.ready()
        for gateway in gateways:
            for (path, value, host), model in REQUESTS[gateway.name].items():
                url = URL(f"http://127.0.0.1:{gateway.port}{path}", encoded=True)
                headers = {k: v for k, v in (("x-model", value), ("host", host)) if v}
                async with session.get(url, headers=headers) as response:
                    assert response.status == (200 if model else 404), (gateway.name, path, value, host)
                    seen = (await response.json())["path"] if model else ""
                # Slashes are merged only where the path names the model.
                merged = isinstance(gateway.routing, PathRouting)
                assert "//" not in seen.partition("?")[0] or not merged
                assert merged or not model or seen == path
        stats = await envoy.stats("^cluster.*upstream_rq_total$")
        for name in models:
            expected = sum(answer == name for requests in REQUESTS.values() for answer in requests.values())
            assert stats[f"cluster.{name}/v1.upstream_rq_total"] == expected, name
    for upstream in ups.values():
        assert upstream.runner is not None
        await upstream.runner.cleanup()
