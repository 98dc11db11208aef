"""The other settings of gateways, models and versions together, on one body gateway in real Envoys."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from controlplane.domain import (
    AccessLog,
    BodyRouting,
    Cors,
    Endpoint,
    FileSink,
    Mirror,
    Model,
    Protocol,
    RateLimit,
    RateLimiting,
    Sticky,
    Version,
)
from tests.envoy.test_compiled import edge, rig, state_of
from tests.envoy.test_edge import ENVOYS, ORIGIN, PREFLIGHT
from tests.envoy.test_matrix import binary
from tests.envoy.test_upstream_requests import Server
from tests.envoy.upstreams import echo_over_http2, echo_server, grpc_web_body, health_server

pytestmark = pytest.mark.envoy

CHAT = "org/chat:8b"
JSON = {"content-type": "application/json"}


@ENVOYS
async def test_settings_work_together_on_a_body_gateway(tmp_path: Path, version: str) -> None:
    log = tmp_path / "access.log"
    gateway = replace(
        edge(routing=BodyRouting(default_model="health")),
        answered_by_header="x-answered-by",
        health_path="/v1/chat/completions",
        access_log=AccessLog(file=FileSink(str(log))),
        cors=Cors((ORIGIN,)),
        rate_limiting=RateLimiting(),
    )
    async with AsyncExitStack() as stack:
        blue, green, shadow = [await stack.enter_async_context(Server(n).running()) for n in ("blue", "green", "shadow")]
        echo, grpc_port = await stack.enter_async_context(echo_server("v1")), await stack.enter_async_context(health_server())

        def one(name: str, port: int, protocol: Protocol = Protocol.HTTP1, **more: Any) -> Model:
            return Model(name, ("edge",), (Version("v1", (Endpoint("127.0.0.1", port),), protocol),), {"v1": 10_000}, **more)

        versions = [
            Version(server.name, (Endpoint("127.0.0.1", server.port),), upstream_model=upstream_model)
            for server, upstream_model in ((blue, "llama-3.1"), (green, "llama-3.3"), (shadow, "llama-4"))
        ]
        chat = Model(
            "chat",
            ("edge",),
            tuple(versions),
            {"blue": 5_000, "green": 5_000},
            (CHAT,),
            sticky=Sticky(header="x-user"),
            preview_header="x-version",
            mirror=Mirror("shadow"),
        )
        limited = one("limited", blue.port, rate_limits=(RateLimit(3, 60.0),))
        # The list is as long as that of 2,000 models with one key each.
        many = [one(f"many-{i}", blue.port, keys=tuple(f"many-{i:02}-{j:02}" for j in range(32))) for i in range(63)]
        models = [chat, limited, *many, one("realtime", echo), one("health", grpc_port, Protocol.GRPC)]
        r = await stack.enter_async_context(rig(state_of(gateway, *models), {}, tmp_path, binary(version)))
        url = f"http://127.0.0.1:{r.ports['edge']}"

        async def ask(model: str, **headers: str) -> tuple[int, str]:
            fields = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
            body = json.dumps({"model": model, "messages": []})
            async with r.session.post(f"{url}/v1/chat/completions", data=body, headers=fields) as response:
                return response.status, await response.text()

        # A user stays on a version, and users are on both. Each version and the mirror get the name that they know.
        users = {f"u{i}": (await ask(CHAT, x_user=f"u{i}"))[1] for i in range(20)}
        assert set(users.values()) == {"blue", "green"}
        assert {user: (await ask(CHAT, x_user=user))[1] for user in users} == users
        copies = [await shadow.next() for _ in range(40)]
        for server, name in ((blue, "llama-3.1"), (green, "llama-3.3")):
            assert {json.loads(request.body)["model"] for request in server.seen} == {name}
        assert {json.loads(copy.body)["model"] for copy in copies} == {"llama-4"}
        # A preview chooses the version, and is copied too, unless the mirror answers it.
        assert (await ask(CHAT, x_version="green", x_user="u0")) == (200, "green")
        assert (await ask(CHAT, x_version="shadow"))[1] == "shadow"
        assert [json.loads((await shadow.next()).body)["model"] for _ in range(2)] == ["llama-4"] * 2
        await asyncio.sleep(0.1)
        assert not shadow.seen

        statuses = Counter([(await ask("limited"))[0] for _ in range(5)])
        assert statuses == {200: 3, 429: 2}
        assert json.loads((await ask("limited"))[1])["error"]["code"] == "rate_limit_exceeded"

        # Browsers: the model is in the body, and a preflight request has none.
        async with r.session.options(f"{url}/v1/chat/completions", headers=PREFLIGHT) as response:
            assert (response.status, response.headers["access-control-allow-origin"]) == (204, ORIGIN)
        for body, status in ((json.dumps({"model": CHAT}), 200), ('{"model":"none"}', 404), ('{"model":5}', 400)):
            sent = r.session.post(f"{url}/v1/chat/completions", data=body, headers=JSON | {"Origin": ORIGIN})
            async with sent as response:
                assert (response.status, response.headers["access-control-allow-origin"]) == (status, ORIGIN)
                assert response.headers.get("x-answered-by", "").startswith("model=chat, ") == (status == 200)
                assert response.headers["x-request-id"]

        # A WebSocket names its model in the query, as OpenAI's clients for realtime do.
        async with r.session.ws_connect(f"{url}/v1/realtime?model=realtime") as ws:
            await ws.send_str("hello")
            assert await ws.receive_str(timeout=10) == "v1: hello"
        over_http2 = await asyncio.to_thread(echo_over_http2, r.ports["edge"], "/v1/realtime?model=realtime", "hello")
        assert over_http2 == ("200", "v1: hello")

        # gRPC and gRPC-Web have no JSON body. They go to the default model.
        headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
        message = grpc_web_body(health_pb2.HealthCheckRequest())
        async with r.session.post(f"{url}/grpc.health.v1.Health/Check", data=message, headers=headers) as response:
            assert (response.status, b"grpc-status:0" in await response.read()) == (200, True)

        # The health path answers load balancers, and takes no request from a model.
        for method in ("GET", "HEAD"):
            async with r.session.request(method, f"{url}/v1/chat/completions") as response:
                assert (response.status, await response.read()) == (200, b"")
        async with r.session.get(f"{url}/v1/models") as response:
            listed = [model["id"] for model in (await response.json())["data"]]
            assert listed == sorted([CHAT, "limited", "realtime", "health", *[key for model in many for key in model.keys]])
        async with r.session.get(f"{url}/v1/models/many-62-31") as response:
            assert (response.status, (await response.json())["id"]) == (200, "many-62-31")

    # Envoy writes its log when it ends. The log names the model by its label, and the version that answered.
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert {(e["model"], e["version"]) for e in entries} >= {("chat", "blue"), ("chat", "green"), ("health", "v1")}
    assert b"script log" not in (tmp_path / "envoy.log").read_bytes()
