"""Local replies of a real Envoy: each failure says what is wrong, over HTTP and over gRPC. One Envoy has all the failures."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

import aiohttp
import grpc
import pytest
from aiohttp import web

from controlplane.compiler import Compiler
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.plane import free_port
from controlplane.domain import (
    BodyRouting,
    ConnectionLimits,
    Credential,
    Endpoint,
    ErrorFormat,
    HeaderRouting,
    HostRouting,
    Model,
    OpaqueValue,
    Protocol,
    Retries,
    Secret,
    Timeouts,
    UpstreamTls,
    Version,
)
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.snapshot import Audience, Snapshot
from tests.envoy import test_compiled
from tests.envoy.test_compiled import Rig, Upstream, edge, rig, state_of
from tests.pki import Authority

pytestmark = pytest.mark.envoy

GATEWAYS = ("by-path", "by-header", "by-host", "openai")
Code = grpc.StatusCode

# By model: the status, and the text, of a request that fails.
FAILURES = {
    "slow": (504, Code.DEADLINE_EXCEEDED, "The model did not answer in time."),
    "slow-tries": (504, Code.DEADLINE_EXCEEDED, "The model did not answer in time."),
    "silent": (504, Code.DEADLINE_EXCEEDED, "The request ended because no data was sent for too long."),
    "full": (503, Code.UNAVAILABLE, "Too many requests for this model are waiting or in progress. Try again later."),
    "nowhere": (503, Code.UNAVAILABLE, "The model has no healthy server at this time. Try again later."),
    "other-name": (503, Code.UNAVAILABLE, "The TLS handshake between the gateway and the model's server failed. Tell the"),
    "no-tls": (503, Code.UNAVAILABLE, "The TLS handshake between the gateway and the model's server failed. Tell the"),
    "refused": (503, Code.UNAVAILABLE, "The gateway can't connect to the model's server. Try again later."),
    "drops": (503, Code.UNAVAILABLE, "The model's server ended the connection before it answered. It may have acted on it"),
    "no-key": (503, Code.UNAVAILABLE, "The gateway has no credential for the model's server yet. Try again in a few seconds."),
    "not-http": (502, Code.UNAVAILABLE, "The model's server ended the connection before it answered. It may have acted on it"),
}


@dataclass
class Failures:
    """The Envoy, and ways to ask it."""

    rig: Rig

    async def ask(self, gateway: str, path: str = "/", **headers: str) -> tuple[int, str, object]:
        """Return the status, the content type, and the JSON of an answer (its text if it is not JSON)."""
        url = f"http://127.0.0.1:{self.rig.ports[gateway]}{path}"
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.rig.session.post(url, headers=fields) as response:
            is_json = response.content_type == "application/json"
            return response.status, response.content_type, await (response.json() if is_json else response.text())

    async def call(self, gateway: str, model: str) -> tuple[grpc.StatusCode, str]:
        """Return the status and the message of a call that fails."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.rig.ports[gateway]}") as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", bytes, bytes)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await infer(b"", metadata=(("x-model", model),) if model else (), timeout=10)
            return caught.value.code(), caught.value.details() or ""

    async def call_from_browser(self, gateway: str, model: str) -> tuple[int, int, str]:
        """Return the statuses of HTTP and of gRPC, and the message, of a gRPC-Web call that fails."""
        url = f"http://127.0.0.1:{self.rig.ports[gateway]}/inference.GRPCInferenceService/ModelInfer"
        headers = {"content-type": "application/grpc-web+proto", "x-model": model}
        async with self.rig.session.post(url, headers=headers, data=b"") as response:
            assert not [name for name in response.headers if name.lower().startswith("x-turnout")]
            return response.status, int(response.headers["grpc-status"]), unquote(response.headers["grpc-message"])


@asynccontextmanager
async def failures(directory: Path) -> AsyncIterator[Failures]:
    """Run an Envoy with a model for each failure."""
    authority = Authority()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.pair("iris.example").files(directory, "iris"))
    servers = {
        "slow": Upstream("slow", delay=3),
        "drops": Upstream("drops", to_drop=1_000),
        "tls": Upstream("tls", tls=tls),
    }
    async with AsyncExitStack() as stack:
        at = {name: await server.start() for name, server in servers.items()}
        # A server whose answers are not HTTP, and one that answers with errors of its own.
        other = await asyncio.start_server(_answer_without_http, "127.0.0.1", 0)
        stack.callback(other.close)
        not_http = Endpoint("127.0.0.1", other.sockets[0].getsockname()[1])
        own, runner = await _own_errors()
        stack.push_async_callback(runner.cleanup)
        expects_wine = UpstreamTls("wine.example", authority.certificate)

        def model(name: str, endpoint: Endpoint, tls: UpstreamTls | None = None, **settings: object) -> Model:
            limit = ConnectionLimits(max_requests=1) if name == "full" else ConnectionLimits()
            credential = Credential("key") if name == "no-key" else None
            version = Version("blue", (endpoint,), Protocol.HTTP1, tls, limits=limit, credential=credential)
            return Model(name, GATEWAYS, (version,), {"blue": 10_000}, **settings)  # type: ignore[arg-type]

        state = state_of(
            edge("by-path"),
            edge("by-header", HeaderRouting("x-model")),
            edge("by-host", HostRouting()),
            replace(edge("openai", HeaderRouting("x-model")), error_format=ErrorFormat.OPENAI),
            model("slow", at["slow"], timeouts=Timeouts(request=0.3)),
            model("slow-tries", at["slow"], retries=Retries(1, True, 0.1)),
            model("silent", at["slow"], timeouts=Timeouts(idle=0.3)),
            model("full", at["slow"], retries=Retries(0)),
            model("nowhere", Endpoint("no-such-host.invalid", 80)),
            model("other-name", at["tls"], expects_wine),
            model("no-tls", not_http, expects_wine),
            model("refused", Endpoint("127.0.0.1", free_port())),
            model("drops", at["drops"]),
            model("not-http", not_http),
            model("no-key", own),
            model("own", own),
            Secret("key", OpaqueValue("sk-1")),
        )
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(test_compiled, "static_bootstrap", _without_values)
        yield Failures(await stack.enter_async_context(rig(state, servers, directory)))


def _without_values(snapshot: Snapshot) -> dict[str, object]:
    """Return a static bootstrap whose opaque secrets are empty, as if the Envoy had not received them yet."""
    bootstrap: dict[str, object] = json.loads(json.dumps(static_bootstrap(snapshot)).replace('"placeholder"', '""'))
    return bootstrap


async def _answer_without_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"220 mail.example ESMTP\r\n")
    writer.close()


async def _own_errors() -> tuple[Endpoint, web.AppRunner]:
    """Start a server that answers with the status in the path, and a text of its own."""

    async def answer(request: web.Request) -> web.Response:
        status = int(request.path.rpartition("/")[2])
        return web.Response(status=status, text=f"own {status}", headers={"x-own": "yes"})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return Endpoint("127.0.0.1", port), runner


async def test_each_failure_says_what_is_wrong_over_http_and_over_grpc(tmp_path: Path) -> None:
    async with failures(tmp_path) as f:
        # The one request that `full` may have in progress.
        occupying = asyncio.create_task(f.ask("by-path", "/v2/models/full"))
        await f.rig.upstreams["slow"].wait_for_requests(1)
        asked = await asyncio.gather(*(f.ask("by-path", f"/v2/models/{m}") for m in FAILURES))
        called = await asyncio.gather(*(f.call("by-header", m) for m in FAILURES))
        from_browsers = await asyncio.gather(*(f.call_from_browser("by-header", m) for m in FAILURES))
        occupying.cancel()
        for model, answer, (code, message), web_answer in zip(FAILURES, asked, called, from_browsers, strict=True):
            status, expected_code, text = FAILURES[model]
            assert answer[:2] == (status, "application/json"), model
            assert isinstance(answer[2], dict)
            assert answer[2].keys() == {"error"}
            assert answer[2]["error"] == message
            assert code is expected_code, model
            assert web_answer == (status, expected_code.value[0], message), model
            assert message.startswith(text.removesuffix("it")), model
            for internal in ("127.0.0.1", "blue", "TLS_error", "CERT", "OPENSSL", "reset reason", "wine.example"):
                assert internal not in message


async def test_an_unknown_model_is_not_found_on_every_kind_of_gateway(tmp_path: Path) -> None:
    async with failures(tmp_path) as f:
        by_path = (
            "No model matches the path '/v2/models/irs/infer'. This gateway reads the model's name from segment 3 of the "
            "path. Check the name and the path."
        )
        by_header = (
            "There is no model 'irs \"1\"'. This gateway reads the model's name from the header x-model. Check the name."
        )
        missing = "The request names no model. Send the model's name in the header x-model (in gRPC: as metadata)."
        by_host = (
            "No model matches the host 'irs.example'. This gateway reads the model's name from the host. "
            "Check the host of the URL."
        )
        not_found = (404, "application/json")
        assert await f.ask("by-path", "/v2/models/irs/infer?x=1") == (*not_found, {"error": by_path})
        assert await f.ask("by-header", x_model='irs "1"') == (*not_found, {"error": by_header})
        assert await f.ask("by-header", "/v2/models/slow") == (*not_found, {"error": missing})
        assert await f.ask("by-host", Host="irs.example:80") == (*not_found, {"error": by_host})
        in_openai_form = {"message": missing, "type": "invalid_request_error", "param": None, "code": "model_not_found"}
        assert await f.ask("openai", "/v1/chat") == (*not_found, {"type": "error", "error": in_openai_form})
        assert await f.ask("openai", "/api/chat") == (*not_found, {"error": missing})  # Ollama's API
        assert await f.call("by-header", 'irs "1"') == (Code.NOT_FOUND, by_header)
        assert await f.call("openai", "") == (Code.NOT_FOUND, missing)
        assert await f.call_from_browser("by-header", 'irs "1"') == (404, 5, by_header)
        code, message = await f.call("by-path", "slow")
        assert code is Code.NOT_FOUND
        assert "/inference.GRPCInferenceService/ModelInfer" in message
        assert message.endswith("Call a gateway that reads it from a header.")
        # A long path is cut off.
        _, _, long = await f.ask("by-path", "/v2/models/" + "a" * 5_000)
        assert len(str(long)) < 500


async def test_an_upgrade_to_an_unknown_protocol_is_refused_with_a_reason(tmp_path: Path) -> None:
    text = "The gateway can change to no other protocol than WebSocket."
    async with failures(tmp_path) as f:
        answer = await f.ask("by-path", "/v2/models/own/200", connection="upgrade", upgrade="spdy")
        assert answer == (403, "application/json", {"error": text})


async def test_the_answers_of_a_model_server_are_not_touched(tmp_path: Path) -> None:
    async with failures(tmp_path) as f:
        statuses = (400, 404, 408, 413, 429, 500, 502, 503, 504)
        answers = {s: await f.ask("by-path", f"/v2/models/own/{s}") for s in statuses}
        assert answers == {s: (s, "text/plain", f"own {s}") for s in statuses}
        openai = f"http://127.0.0.1:{f.rig.ports['openai']}/503"
        async with f.rig.session.get(openai, headers={"x-model": "own", "content-type": "application/grpc"}) as response:
            assert (response.status, await response.text(), response.headers["x-own"]) == (503, "own 503", "yes")
            assert "grpc-status" not in response.headers


async def test_an_overloaded_envoy_and_a_body_above_the_limit(tmp_path: Path) -> None:
    gateway = edge(routing=BodyRouting(max_body_bytes=1 << 20))
    version = Version("blue", (Endpoint("127.0.0.1", free_port()),))
    state = state_of(gateway, Model("iris", (gateway.name,), (version,), {"blue": 10_000}))
    bootstrap = static_bootstrap(Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience((gateway.name,)), 1))
    heap = "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig"
    monitor = {"name": "heap", "typed_config": {"@type": heap, "max_heap_size_bytes": 1 << 30}}
    trigger = {"name": "heap", "threshold": {"value": 0.001}}  # a thousandth of 1 GiB: any Envoy uses more
    actions = [{"name": "envoy.overload_actions.stop_accepting_requests", "triggers": [trigger]}]
    overload = {"refresh_interval": "0.05s", "resource_monitors": [monitor], "actions": actions}
    expected = {
        False: (413, "request_too_large", "The request is larger than this gateway accepts."),
        True: (503, "gateway_overloaded", "The gateway is overloaded. Try again later."),
    }
    for overloaded, answer in expected.items():
        form = {**bootstrap, **({"overload_manager": overload} if overloaded else {})}
        async with Envoy(form) as envoy, aiohttp.ClientSession() as session:
            await envoy.ready()
            for _ in range(500 if overloaded else 0):  # at most 10 s
                if any((await envoy.stats("overload.*stop_accepting_requests.active")).values()):
                    break
                await asyncio.sleep(0.02)
            url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
            async with session.post(url, json={"model": "iris", "prompt": "a" * (3 << 20)}) as response:
                error = (await response.json())["error"]
                assert (response.status, error["code"], error["message"]) == answer
