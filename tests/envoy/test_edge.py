"""Requests of browsers, SDKs and load balancers in real Envoys, the oldest and the newest supported ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import grpc
import pytest
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from grpc_health.v1 import health_pb2

from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.domain import (
    AccessLog,
    Cors,
    Endpoint,
    FileSink,
    Gateway,
    GrpcSink,
    HeaderRouting,
    HostRouting,
    Model,
    Protocol,
    Sticky,
    Version,
)
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from controlplane.snapshot import Snapshot
from tests.envoy import test_compiled
from tests.envoy.test_compiled import Rig, Upstream, edge, rig, state_of, versions
from tests.envoy.test_matrix import OLDER, binary
from tests.envoy.upstreams import (
    echo_over_http2,
    echo_server,
    exchange_trailers,
    grpc_web_body,
    health_server,
    trailer_server,
)

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

    def port(self, gateway: str) -> int:
        return self._rig.ports[gateway]

    @property
    def upstreams(self) -> dict[str, Upstream]:
        return self._rig.upstreams

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
    hidden = replace(edge("hidden"), hide_models=True, access_log=AccessLog())  # to stdout
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
        assert (await ask("edge", "/healthz", "HEAD"))[0] == 200
        assert (await ask("edge", "/healthz", "POST"))[0] == 404
        assert (await ask("hidden", "/healthz"))[0] == 404
        # A request to the last gateway, so that Envoy has logged all of the others.
        async with aiohttp.ClientSession() as admin:
            async with admin.post(f"http://{ask._rig.envoy.admin}/healthcheck/fail"):
                pass
            assert (await ask("edge", "/healthz"))[0] == 503
            # Rotation: rename the file, and let Envoy open a new one.
            rotated = log.rename(tmp_path / "access.log.1")
            async with admin.post(f"http://{ask._rig.envoy.admin}/reopen_logs"):
                pass
            assert (await ask("edge", "/v2/models/iris/after"))[0] == 200
            # The thread that writes opens the file when it writes next.
            exists = False
            async with asyncio.timeout(20):
                while not exists:
                    await asyncio.sleep(0.02)
                    exists = log.exists()
    # Envoy flushes what it has at its end.
    text, after = rotated.read_text(), log.read_text()
    assert "/v2/models/iris/after" not in text
    assert json.loads(after.splitlines()[-1])["path"] == "/v2/models/iris/after"
    text += after
    to_stdout = [json.loads(line) for line in (tmp_path / "envoy.log").read_text().splitlines() if line.startswith("{")]
    assert ("/v2/repository/index", 404) in [(line["path"], line["response_code"]) for line in to_stdout]
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


@ENVOYS
async def test_browsers_of_other_origins(tmp_path: Path, version: str) -> None:
    cors = Cors((ORIGIN,), expose_headers=("grpc-status",), allow_credentials=True, max_age=600.0)
    gateways = [
        replace(gateway, cors=cors)
        for gateway in (edge(), edge("by-header", HeaderRouting("x-model")), edge("by-host", HostRouting()))
    ]
    foreign = PREFLIGHT | {"Origin": "https://evil.example"}
    async with asker(tmp_path, version, *gateways, edge("no-cors", HeaderRouting("x-model"))) as ask:
        seen = ask.upstreams["blue"].seen
        for gateway in ("edge", "by-header", "by-host"):
            status, headers, body = await ask(gateway, "/v2/models/iris/infer", "OPTIONS", PREFLIGHT)
            assert (status, body) == (204, "")
            assert {name: value for name, value in headers.items() if name.startswith(("access", "vary"))} == {
                "access-control-allow-origin": ORIGIN,
                "access-control-allow-credentials": "true",
                "access-control-expose-headers": "grpc-status",
                "access-control-allow-methods": "POST",
                "access-control-allow-headers": "x-model,content-type",
                "access-control-max-age": "600",
                "vary": "origin",
            }
            status, headers, _ = await ask(gateway, "/v2/models/iris/infer", "OPTIONS", foreign)
            assert (status, [name for name in headers if name.startswith("access")]) == (204, [])
        assert seen == []
        ask.upstreams["blue"].headers = {"access-control-allow-origin": "*"}
        _, headers, _ = await ask("edge", "/v2/models/iris", headers={"Origin": ORIGIN})
        assert headers["access-control-allow-origin"] == ORIGIN
        _, headers, _ = await ask("edge", "/v2/models/iris", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in headers
        # A page can read the error, too.
        status, headers, _ = await ask("edge", "/v2/models/wine", headers={"Origin": ORIGIN})
        assert (status, headers["access-control-allow-origin"]) == (404, ORIGIN)
        # OPTIONS that is no preflight is a request like any other. Without a policy, a preflight is one, too.
        assert (await ask("edge", "/v2/models/iris", "OPTIONS"))[2]["version"] == "blue"
        assert (await ask("no-cors", "/v2/models/iris", "OPTIONS", PREFLIGHT))[0] == 404


@ENVOYS
async def test_clients_of_http_1_0_are_served(tmp_path: Path, version: str) -> None:
    """Such clients are older proxies and health checks. Without a Host header, only a host gateway can't serve them."""
    async with asker(tmp_path, version, edge(), edge("by-host", HostRouting())) as ask:
        for gateway, request, status in (
            ("edge", "GET /v2/models/iris HTTP/1.0\r\n", "200"),
            ("edge", "OPTIONS / HTTP/1.0\r\n", "200"),
            ("edge", "GET /v2/models/wine HTTP/1.0\r\n", "404"),
            ("by-host", "GET / HTTP/1.0\r\nhost: iris\r\n", "200"),
            ("by-host", "GET / HTTP/1.0\r\n", "404"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", ask.port(gateway))
            writer.write(f"{request}\r\n".encode())
            # The connection ends after the response, as 1.0 requires.
            head, _, body = (await asyncio.wait_for(reader.read(), 10)).decode().partition("\r\n\r\n")
            writer.close()
            assert head.startswith(f"HTTP/1.0 {status} "), (gateway, request)
            assert isinstance(json.loads(body), dict)


@ENVOYS
async def test_known_limit_a_sticky_cookie_is_not_set(tmp_path: Path, version: str) -> None:
    """Docs: "Known limits". When this fails, Envoy sets a cookie when it chooses a version by it: offer that."""
    ups, both = await versions("blue", "green")
    half = {"blue": 5_000, "green": 5_000}
    state = state_of(edge(), Model("iris", ("edge",), both, half, sticky=Sticky(cookie="session")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_compiled, "static_bootstrap", _with_generated_cookies)
        async with rig(state, ups, tmp_path, binary(version)) as r, aiohttp.ClientSession() as client:
            for _ in range(5):
                async with client.get(f"http://127.0.0.1:{r.ports['edge']}/v2/models/iris") as response:
                    assert (response.status, "set-cookie" in response.headers) == (200, False)


def _with_generated_cookies(snapshot: Snapshot) -> dict[str, object]:
    """Return a static bootstrap in which Envoy should make the cookies of its hash policies."""
    text = json.dumps(static_bootstrap(snapshot))
    changed = text.replace('"cookie": {"name": "session"', '"cookie": {"ttl": "60s", "name": "session"')
    assert changed != text
    bootstrap: dict[str, object] = json.loads(changed)
    return bootstrap


@ENVOYS
async def test_an_empty_sticky_header_is_no_user(tmp_path: Path, version: str) -> None:
    half = {"blue": 5_000, "green": 5_000}
    async with asker(tmp_path, version, edge(), split=half, sticky=Sticky(header="x-user")) as ask:

        async def answers(value: str | None) -> set[str]:
            headers = {} if value is None else {"x-user": value}
            return {(await ask("edge", "/v2/models/iris", headers=headers))[2]["version"] for _ in range(30)}

        # By chance, all 30 requests have the same version once in 500 million runs.
        assert await answers("") == await answers(None) == {"blue", "green"}
        assert len(await answers("anna")) == 1


@ENVOYS
async def test_websockets_trailers_and_grpc_web(tmp_path: Path, version: str) -> None:
    async with AsyncExitStack() as stack:
        ports = {
            name: await stack.enter_async_context(server)
            for name, server in {"chat": echo_server("v1"), "sums": trailer_server(), "health": health_server()}.items()
        }
        protocols = {"health": Protocol.GRPC}
        models = [
            Model(
                name,
                ("edge", "by-header"),
                (Version("v1", (Endpoint("127.0.0.1", port),), protocols.get(name, Protocol.HTTP1)),),
                {"v1": 10_000},
            )
            for name, port in ports.items()
        ]
        state = state_of(edge(), edge("by-header", HeaderRouting("x-model")), *models)
        r = await stack.enter_async_context(rig(state, {}, tmp_path, binary(version)))
        url = f"http://127.0.0.1:{r.ports['edge']}/v2/models"
        async with r.session.ws_connect(f"{url}/chat/stream") as ws:
            await ws.send_str("hello")
            assert await ws.receive_str(timeout=10) == "v1: hello"
        over_http2 = await asyncio.to_thread(echo_over_http2, r.ports["edge"], "/v2/models/chat/stream", "hello")
        assert over_http2 == ("200", "v1: hello")
        with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
            await r.session.ws_connect(f"{url}/unknown/stream")
        raw = await exchange_trailers(r.ports["edge"], "/v2/models/sums")
        assert (raw.startswith("HTTP/1.1 200"), "x-sum: 42" in raw.lower()) == (True, True), raw
        path = f"http://127.0.0.1:{r.ports['by-header']}/grpc.health.v1.Health/Check"
        headers = {"content-type": "application/grpc-web+proto", "x-model": "health", "x-grpc-web": "1"}
        async with r.session.post(path, data=grpc_web_body(health_pb2.HealthCheckRequest()), headers=headers) as response:
            body = await response.read()
            assert (response.status, response.content_type) == (200, "application/grpc-web+proto")
        # A frame with the message SERVING, then one with the trailers.
        assert body.startswith(b"\0\0\0\0\x02\x08\x01\x80")
        assert b"grpc-status:0" in body
        # The page can read what is wrong.
        headers["x-model"] = "unknown"
        async with r.session.post(path, data=grpc_web_body(health_pb2.HealthCheckRequest()), headers=headers) as response:
            assert (response.status, response.headers["grpc-status"]) == (404, "5")
            assert "There is no model 'unknown'" in unquote(response.headers["grpc-message"])


async def test_a_websocket_outlives_a_switch_and_answers_name_the_revision(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    port = free_port()
    async with AsyncExitStack() as stack:
        ports = {v: await stack.enter_async_context(echo_server(v)) for v in ("blue", "green")}
        gateway = gateway_pb2.Gateway(name="edge", address="127.0.0.1", port=port, answered_by_header="x-answered-by")
        gateway.access_log.file.path = str(log)
        versions = [
            model_pb2.Version(name=v, endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=p)]) for v, p in ports.items()
        ]
        models = [
            model_pb2.Model(name=n, gateways=["edge"], versions=versions, split={"blue": 10_000}) for n in ("chat", "other")
        ]
        await control_plane.apply(Manifest(gateways=[gateway], models=models))
        envoy = control_plane.envoy("edge-1")
        stack.push_async_callback(envoy.close)
        await envoy.start()
        await envoy.listens(port)
        await control_plane.held(1, 1)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        url = f"http://127.0.0.1:{port}/v2/models"

        async def answered_by(model: str) -> str:
            async with session.get(f"{url}/{model}") as response:
                return response.headers["x-answered-by"]

        assert await answered_by("chat") == "model=chat, version=blue, revision=1"
        updates = "http.edge.(rds|scoped_rds).*update_success$|listener_manager.lds.update_success$"
        before = await envoy.stats(updates)
        async with session.ws_connect(f"{url}/chat/stream") as ws:
            await ws.send_str("1")
            assert await ws.receive_str(timeout=10) == "blue: 1"
            await control_plane.held(await control_plane.split("chat", {"green": 10_000}), 1)
            # An Envoy ACKs a route some milliseconds before it uses it.
            async with asyncio.timeout(10):
                while await answered_by("chat") != "model=chat, version=green, revision=2":
                    pass
            # The open WebSocket stays where it is, and a new one goes to the new version.
            await ws.send_str("2")
            assert await ws.receive_str(timeout=10) == "blue: 2"
            async with session.ws_connect(f"{url}/chat/stream") as new:
                await new.send_str("3")
                assert await new.receive_str(timeout=10) == "green: 3"
            after = await envoy.stats(updates)
            assert [name for name in after if after[name] != before[name]] == ["http.edge.rds.chat.update_success"]
            assert await answered_by("other") == "model=other, version=blue, revision=1"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    last = next(line for line in reversed(lines) if line["model"] == "chat" and line["response_code"] == 200)
    assert (last["version"], last["revision"]) == ("green", 2)


class Collector(als_pb2_grpc.AccessLogServiceServicer):  # type: ignore[misc]
    """Collects the entries of access logs: the log's name, the custom tags and the request id of each."""

    def __init__(self) -> None:
        self.entries: asyncio.Queue[tuple[str, dict[str, str], str]] = asyncio.Queue()

    async def StreamAccessLogs(self, requests: Any, context: Any) -> Any:
        name = ""
        async for message in requests:
            name = message.identifier.log_name or name
            for entry in message.http_logs.log_entry:
                tags = dict(entry.common_properties.custom_tags)
                self.entries.put_nowait((name, tags, entry.request.request_id))
        return als_pb2.StreamAccessLogsResponse()


@ENVOYS
async def test_a_collector_gets_an_entry_for_each_request(tmp_path: Path, version: str) -> None:
    collector, server = Collector(), grpc.aio.server()
    als_pb2_grpc.add_AccessLogServiceServicer_to_server(collector, server)
    sink = GrpcSink("127.0.0.1", server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    try:
        async with asker(tmp_path, version, replace(edge(), access_log=AccessLog(grpc=sink))) as ask:
            assert (await ask("edge", "/v2/models/iris", headers={"x-request-id": ID}))[0] == 200
            name, tags, request_id = await asyncio.wait_for(collector.entries.get(), 10)
            assert (name, request_id) == ("edge", ID)
            assert (tags["model"], tags["version"]) == ("iris", "blue")
    finally:
        await server.stop(None)
