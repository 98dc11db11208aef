"""Requests of browsers, SDKs and load balancers in real Envoys, the oldest and the newest supported ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controlplane.domain import AccessLog, FileSink, Gateway, HeaderRouting, Model
from tests.envoy.test_compiled import Rig, edge, rig, state_of, versions
from tests.envoy.test_matrix import OLDER, binary

pytestmark = pytest.mark.envoy

ENVOYS = pytest.mark.parametrize("version", [OLDER[0], "newest"])
ORIGIN = "https://app.example.com"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "x-model,content-type",
}
ID = "4f6d1b2a-0000-4000-8000-00000000cafe"


class Asker:
    """Sends requests to the gateways of a rig."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    async def __call__(
        self, gateway: str, path: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Return the status, the headers in lower case, and the body: parsed if it is JSON."""
        url = f"http://127.0.0.1:{self._rig.ports[gateway]}{path}"
        async with self._rig.session.request(method, url, headers=headers) as response:
            text = await response.text()
            body = json.loads(text) if response.content_type == "application/json" and text else text
            return response.status, {k.lower(): v for k, v in response.headers.items()}, body

    @property
    def seen(self) -> dict[str, str]:
        """The headers of the newest request that reached the model server."""
        return self._rig.upstreams["blue"].seen[-1][2]


@asynccontextmanager
async def asker(directory: Path, version: str, *gateways: Gateway, **model: Any) -> AsyncIterator[Asker]:
    """Run an Envoy with these gateways and the model iris on all of them."""
    ups, both = await versions("blue", "green")
    iris = Model("iris", tuple(g.name for g in gateways), both, **({"split": {"blue": 10_000}} | model))
    async with rig(state_of(*gateways, iris), ups, directory, binary(version)) as r:
        yield Asker(r)


@ENVOYS
async def test_what_a_gateway_answers_itself_and_adds(tmp_path: Path, version: str) -> None:
    log = tmp_path / "access.log"
    public = replace(
        edge(), answered_by_header="x-answered-by", health_path="/healthz", access_log=AccessLog(file=FileSink(str(log)))
    )
    hidden = replace(edge("hidden"), hide_models=True)
    async with asker(tmp_path, version, public, hidden, edge("by-header", HeaderRouting("x-model"))) as ask:
        # A client's request id and trace reach the model server, and the id comes back.
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        sent = {"x-request-id": ID, "traceparent": trace, "user-agent": "sdk/1", "authorization": "Bearer s3cret"}
        status, headers, _ = await ask("edge", "/v2/models/iris/infer?key=s3cret", headers=sent)
        assert (status, headers["x-request-id"]) == (200, ID)
        assert (ask.seen["x-request-id"], ask.seen["traceparent"]) == (ID, trace)
        assert headers["x-answered-by"] == "model=iris, version=blue, revision="
        _, headers, _ = await ask("edge", "/v2/models/iris/infer")
        assert headers["x-request-id"] == ask.seen["x-request-id"]
        # The paths that SDKs ask first.
        index = [{"name": "iris", "state": "READY", "reason": ""}]
        answers = {
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": True},
            "/v2/health/ready?timeout=1": {"ready": True},
            "/v2": {"name": "edge", "version": "", "extensions": []},
            "/v2/": {"name": "edge", "version": "", "extensions": []},
            "/v2/repository/index": index,
            "/v1/models": {"models": ["iris"]},
            "/": {"status": "alive"},
            "/ping": {"status": "alive"},
            "/health": {"status": "alive"},
        }
        for gateway in ("edge", "by-header"):
            name: dict[str, Any] = {"name": gateway, "version": "", "extensions": []}
            expected = answers | {"/v2": name, "/v2/": name}
            assert {path: (await ask(gateway, path))[2] for path in expected} == expected
        status, headers, body = await ask("edge", "/v2/repository/index", "POST")
        assert (status, headers["content-type"], body) == (200, "application/json", index)
        assert "x-answered-by" not in headers
        # The model's server answers for the model, and what nobody knows stays unknown.
        assert (await ask("edge", "/v2/models/iris/ready"))[2]["version"] == "blue"
        assert (await ask("by-header", "/v2/health/ready", headers={"x-model": "iris"}))[2]["version"] == "blue"
        unknown = ["/v2/models/wine", "/v2/models/ready", "/v2/models/", "/v3", "/healthy"]
        assert {path: (await ask("edge", path))[0] for path in unknown} == dict.fromkeys(unknown, 404)
        assert (await ask("by-header", "/v2/health/ready", headers={"x-model": "wine"}))[0] == 404
        assert {p: (await ask("hidden", p))[0] for p in ("/v2/repository/index", "/v1/models", "/v2/health/ready")} == {
            "/v2/repository/index": 404,
            "/v1/models": 404,
            "/v2/health/ready": 200,
        }
        assert (await ask("edge", "/healthz"))[0] == 200
        assert (await ask("hidden", "/healthz"))[0] == 404
        # A request to the last gateway, so that Envoy has logged all of the others.
        async with aiohttp.ClientSession() as admin:
            async with admin.post(f"http://{ask._rig.envoy.admin}/healthcheck/fail"):
                pass
            assert (await ask("edge", "/healthz"))[0] == 503
            async with admin.post(f"http://{ask._rig.envoy.admin}/reopen_logs"):
                pass
    text = log.read_text()
    assert "s3cret" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    first = lines[0]
    assert {
        key: first[key] for key in ("model", "version", "method", "path", "response_code", "user_agent", "request_id")
    } == {
        "model": "iris",
        "version": "blue",
        "method": "GET",
        "path": "/v2/models/iris/infer",
        "response_code": 200,
        "user_agent": "sdk/1",
        "request_id": ID,
    }
    assert (first["protocol"], first["response_flags"], first["trace"]) == ("HTTP/1.1", "-", trace)
    assert first["upstream_host"].startswith("127.0.0.1:")
    assert isinstance(first["duration"], int)
    unknown_model = next(line for line in lines if line["path"] == "/v2/models/wine")
    assert (unknown_model["model"], unknown_model["response_code"], unknown_model["response_flags"]) == (None, 404, "NR")
