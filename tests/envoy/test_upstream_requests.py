"""Versions that change their requests, in the newest and the oldest supported Envoy: over ADS, with secrets over SDS."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from google.protobuf import text_format

from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.plane import ControlPlane, free_port
from controlplane.generated.turnout.v1.gateway_pb2 import AccessLog, FileSink, Gateway, NodeSelector
from controlplane.generated.turnout.v1.model_pb2 import (
    Credential,
    Endpoint,
    HealthCheck,
    Model,
    PathRewrite,
    RequestHeaders,
    Retries,
)
from controlplane.generated.turnout.v1.model_pb2 import Version as VersionProto
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from controlplane.generated.turnout.v1.secret_pb2 import OpaqueValue, Secret
from tests.envoy.test_matrix import OLDER, binary

pytestmark = pytest.mark.envoy

KEY, NEXT_KEY = "sk-0a1b2c3d4e5f-first", "sk-0a1b2c3d4e5f-second"
JSON = "application/json"
NO_HEADERS: Mapping[str, str] = {}


@dataclass
class Request:
    """A request as a model server received it."""

    server: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """A model server that records its requests. It answers with its name, or with `status` if that is not 200."""

    name: str
    status: int = 200
    port: int = 0
    seen: list[Request] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{rest:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("upgrade") == "websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str(f"{request.raw_path} {await socket.receive_str()}")
            return socket
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Request(self.name, request.raw_path, headers, await request.read()))
        self.arrived.set()
        return web.Response(text=self.name, status=self.status)

    async def next(self) -> Request:
        """Wait for a request, and return it. It is forgotten."""
        async with asyncio.timeout(10):
            while not self.seen:
                self.arrived.clear()
                await self.arrived.wait()
        return self.seen.pop(0)

    def version(self, **more: Any) -> VersionProto:
        """Return the version whose only endpoint this server is."""
        return VersionProto(name=self.name, endpoints=[self.endpoint], **more)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(host="127.0.0.1", port=self.port)


@dataclass
class Fleet:
    """A control plane, the newest and the oldest Envoy, and model servers. Each Envoy has a gateway of its own."""

    plane: ControlPlane
    envoys: Sequence[Envoy]
    ports: Sequence[int]
    servers: Sequence[Server]
    session: aiohttp.ClientSession

    @property
    def access_log(self) -> Path:
        return self.plane.directory / "access.log"

    async def apply(self, *models: Model, secrets: Sequence[Secret] = ()) -> None:
        """Apply models and secrets together with the gateways, and wait until both Envoys hold the revision."""
        gateways = [
            Gateway(
                name=f"g-{i}",
                address="127.0.0.1",
                port=port,
                nodes=NodeSelector(ids=[f"edge-{i}"]),
                access_log=AccessLog(file=FileSink(path=str(self.access_log))),
            )
            for i, port in enumerate(self.ports)
        ]
        for model in models:
            del model.gateways[:]
            model.gateways.extend(g.name for g in gateways)
        revision = await self.plane.apply(Manifest(gateways=gateways, models=models, secrets=secrets))
        await self.plane.held(revision, len(self.envoys))
        for envoy, port in zip(self.envoys, self.ports, strict=True):
            await envoy.listens(port)

    async def ask(
        self, port: int, path: str, headers: Mapping[str, str] = NO_HEADERS, body: bytes | AsyncIterator[bytes] = b""
    ) -> int:
        """Send a request to the gateway at a port. Return the status."""
        async with self.session.post(f"http://127.0.0.1:{port}{path}", data=body or None, headers=headers) as response:
            await response.read()
            return response.status


@asynccontextmanager
async def fleet(*servers: Server) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane())
        envoys = []
        for i, (version, variant) in enumerate((("newest", "delta"), (OLDER[0], "sotw"))):
            bootstrap = node_bootstrap(f"edge-{i}", xds_port=plane.xds_port, variant=variant, admin_port=0)  # type: ignore[arg-type]
            envoys.append(await stack.enter_async_context(Envoy(bootstrap, binary=binary(version))))
        for server in servers:
            await stack.enter_async_context(server.running())
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)))
        yield Fleet(plane, envoys, [free_port() for _ in envoys], servers, session)


def shown(request: Request, *names: str) -> dict[str, str | None]:
    return {name: request.headers.get(name) for name in names}


async def test_each_version_gets_its_own_requests() -> None:
    """Live requests, previews, copies and health checks have the changes of the version that they go to."""
    blue, green, ill = Server("blue"), Server("green"), Server("ill", status=503)
    async with fleet(blue, green, ill) as f:
        model = Model(
            name="iris",
            preview_header="x-version",
            rewrite=PathRewrite(prefix="/v2/models/iris", replacement="/v2/models/prod"),
            versions=[
                blue.version(
                    rewrite=PathRewrite(prefix="/v2/models/prod", replacement="/v2/models/prod/versions/1"),
                    request_headers=RequestHeaders(remove=["x-secret", "authorization"]),
                ),
                green.version(
                    rewrite=PathRewrite(prefix="/v2/models/prod", replacement="/v2/models/prod/versions/2"),
                    host="green.example.com:8443",
                    request_headers=RequestHeaders(set={"x-team": "50 % ml", "x-client": "turnout"}),
                    credential=Credential(secret="key"),
                    health_check=HealthCheck(path="/ready"),
                    upstream_model="L/3",
                ),
            ],
            split={"blue": 10_000},
        )
        await f.apply(model, secrets=[Secret(name="key", opaque=OpaqueValue(value=KEY))])
        check = await green.next()
        assert (check.path, check.headers["host"]) == ("/ready", "green.example.com:8443")
        assert shown(check, "x-team", "authorization") == {"x-team": "50 % ml", "authorization": None}
        names = ("host", "x-client", "x-secret", "x-team", "authorization")
        sent = {"host": "iris.test", "x-client": "mine", "x-secret": "s", "authorization": "Bearer mine"}
        of_green = {
            "host": "green.example.com:8443",
            "x-client": "turnout",
            "x-secret": "s",
            "x-team": "50 % ml",
            "authorization": f"Bearer {KEY}",
        }
        for port in f.ports:
            assert await f.ask(port, "/v2/models/iris/infer?a=/v2/models/prod", sent) == 200
            live = await blue.next()
            assert live.path == "/v2/models/prod/versions/1/infer?a=/v2/models/prod"
            assert live.headers["x-envoy-original-path"] == "/v2/models/iris/infer?a=/v2/models/prod"
            assert shown(live, *names) == {
                "host": "iris.test",
                "x-client": "mine",
                "x-secret": None,
                "x-team": None,
                "authorization": None,
            }
            green.seen.clear()
            assert await f.ask(port, "/v2/models/iris/infer", {**sent, "x-version": "green"}) == 200
            preview = await _without_checks(green)
            assert (preview.path, shown(preview, *names)) == ("/v2/models/prod/versions/2/infer", of_green)
        model.mirror.version = "green"
        await f.apply(model)
        for port in f.ports:
            green.seen.clear()
            assert await f.ask(port, "/v2/models/iris/infer", sent) == 200
            copy, live = await _without_checks(green), await blue.next()
            assert (copy.path, shown(copy, *names)) == ("/v2/models/prod/versions/2/infer", of_green)
            assert (live.path, live.headers["host"]) == ("/v2/models/prod/versions/1/infer", "iris.test")
        # So has a large copy.
        large = b'{"messages":["' + b"a" * (3 << 20) + b'"],"model":"chat"}'
        for port in f.ports:
            green.seen.clear()
            assert await f.ask(port, "/v2/models/iris/infer", {"content-type": JSON}, large) == 200
            copy, live = await _without_checks(green), await blue.next()
            assert (live.body == large, copy.body == large.replace(b"chat", b"L/3")) == (True, True)
        # A retry gets the same changes as the first try, and no more.
        model.ClearField("mirror")
        model.versions[0].endpoints.append(ill.endpoint)
        model.versions[0].upstream_model = "llama-3.1"
        model.retries.unsafe = True
        await f.apply(model)
        blue.seen.clear()
        for port in f.ports:
            path = "/v2/models/iris/infer"
            for _ in range(20):
                assert await f.ask(port, path, {"content-type": JSON}, b'{"model":"chat"}') == 200
                answered = await blue.next()
                assert (answered.path, answered.body) == ("/v2/models/prod/versions/1/infer", b'{"model":"llama-3.1"}')
                assert answered.headers["content-length"] == "21"
        assert ill.seen
        assert {r.path for r in ill.seen} == {"/v2/models/prod/versions/1/infer"}


async def _without_checks(server: Server) -> Request:
    """Wait for a request that is no health check, and return it."""
    while (request := await server.next()).path == "/ready":
        pass
    return request


FORM = "multipart/form-data; boundary=b"

# (content type, body, body that the server gets; None: the same)
BODIES: list[tuple[str, bytes, bytes | None]] = [
    (JSON, b'{"model":"chat"}', b'{"model":"L/3"}'),
    ("Application/JSON; charset=utf-8", b'{"model":"chat"}', b'{"model":"L/3"}'),
    ("application/vnd.api+json", b'{"model":"chat"}', b'{"model":"L/3"}'),
    ("", b'{"model":"chat"}', b'{"model":"L/3"}'),
    ("text/plain", b'{"model":"chat"}', b'{"model":"L/3"}'),
    ("application/x-www-form-urlencoded", b'{"model":"chat"}', b'{"model":"L/3"}'),
    ("application/octet-stream", b'{"model":"chat"}', None),
    (JSON, b' \r\n{ "stream" : true , "model" : "chat" } \n', b' \r\n{ "stream" : true , "model" : "L/3"} \n'),
    (JSON, '\ufeff{"model":"chat"}'.encode(), '\ufeff{"model":"L/3"}'.encode()),
    (JSON, b'{"model":null}', b'{"model":"L/3"}'),
    (JSON, b'{"model":1.5e3,"a":2}', b'{"model":"L/3","a":2}'),
    (JSON, b'{"model":{"model":"x"},"a":[1,{"model":"y"}]}', b'{"model":"L/3","a":[1,{"model":"y"}]}'),
    (JSON, b'{"model":["a","]"],"a":"\\"model\\":\\\\"}', b'{"model":"L/3","a":"\\"model\\":\\\\"}'),
    (JSON, b'{"a":"{\\"model\\":\\"x\\"}"}', None),
    (JSON, b'{"model":"a","model":"b","mode\\u006c":"c"}', b'{"model":"L/3","model":"L/3","mode\\u006c":"L/3"}'),
    (JSON, b'{"modell":"a","mode":"b","":"c","m\\"odel":1}', None),
    (JSON, b'["model","chat"]', None),
    (JSON, b'[{"model":"chat"}]', None),
    (JSON, b'{"model":"cha', None),
    (JSON, b'{"model"', None),
    (JSON, b'"model"', None),
    (JSON, b"{", None),
    (JSON, b"\0\xff{}", None),
    (JSON, b"{}", None),
    (
        FORM,
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\n\0model\r\n--b\r\n'
        b'content-disposition: form-data; name="model"\r\n\r\nchat\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\n\0model\r\n--b\r\n'
        b'content-disposition: form-data; name="model"\r\n\r\nL/3\r\n--b--\r\n',
    ),
    (FORM, b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n', None),
    (FORM, b"", None),
]


async def test_the_name_of_the_model_is_replaced_wherever_a_body_gateway_looks_for_it() -> None:
    blue = Server("blue")
    async with fleet(blue) as f:
        retries = Retries(request_body_buffer_limit=4 << 20)
        await f.apply(Model(name="chat", versions=[blue.version(upstream_model="L/3")], retries=retries))
        rng = random.Random(1)
        for port in f.ports:

            async def received(
                body: bytes | AsyncIterator[bytes], kind: str = JSON, query: str = "", encoding: str = ""
            ) -> Request:
                headers = {"content-type": kind} | ({"content-encoding": encoding} if encoding else {})
                assert await f.ask(port, f"/v1/models/chat/x{query}", headers, body) == 200  # noqa: B023
                return blue.seen.pop()

            for kind, body, expected in BODIES:
                got = await received(body, kind)
                assert (kind, got.body) == (kind, body if expected is None else expected)
            # Compressed bodies, and bodies without a length that arrive in pieces.
            got = await received(gzip.compress(b'{"model":"chat"}'), encoding="gzip")
            assert got.body == b'{"model":"chat"}'  # the server has decompressed it
            for _ in range(5):
                got = await received(_pieces(rng, b'{"messages":["' + b"a" * 300 + b'"],"model":"chat","n":1}'))
                assert got.body.endswith(b'a"],"model":"L/3","n":1}')
                assert got.headers["content-length"] == str(len(got.body))
            # The limit of the buffer is the model's.
            large = b'{"messages":["' + b"a" * (3 << 20) + b'"],"model":"chat"}'
            assert (await received(large)).body == large.replace(b"chat", b"L/3")
            assert await f.ask(port, "/v1/models/chat/x", {"content-type": JSON}, large + b" " * (2 << 20)) == 413
            # A WebSocket names the model in its query. Its messages pass as they are.
            async with f.session.ws_connect(f"http://127.0.0.1:{port}/v1/models/chat/x?model=chat") as socket:
                await socket.send_str('{"model":"chat"}')
                assert await socket.receive_str(timeout=5) == '/v1/models/chat/x?model=L%2F3 {"model":"chat"}'
            # Random bodies: a parser reads the same, apart from the name.
            for _ in range(150):
                data = {k: _value(rng) for k in rng.sample(["model", "a", "stream", "m"], rng.randrange(5))}
                got = await received(json.dumps(data, indent=rng.choice([None, 1])).encode())
                assert json.loads(got.body) == ({**data, "model": "L/3"} if "model" in data else data)
            paths = {"?model=chat&a=1": "?model=L%2F3&a=1", "?a=1&model=a%20b": "?a=1&model=L%2F3", "?models=a": "?models=a"}
            for query, expected_query in paths.items():
                assert (await received(b"", query=query)).path == f"/v1/models/chat/x{expected_query}"


def _value(rng: random.Random, depth: int = 0) -> Any:
    match rng.randrange(4 if depth < 3 else 2):
        case 0:
            return rng.choice([None, True, -1.5e10, 0])
        case 1:
            return "".join(rng.choice(['"', "\\", "{", "]", ",", ":", "model", "é", "\n"]) for _ in range(rng.randrange(6)))
        case 2:
            return [_value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            return {rng.choice(["model", '"', "\\"]): _value(rng, depth + 1) for _ in range(rng.randrange(3))}


async def _pieces(rng: random.Random, body: bytes) -> AsyncIterator[bytes]:
    cuts = sorted(rng.sample(range(1, len(body)), 4))
    for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True):
        yield body[start:stop]
        await asyncio.sleep(0.002)


async def test_a_credential_is_rotated_without_a_failed_request_and_is_in_nothing_but_its_secret() -> None:
    blue, green = Server("blue"), Server("green")
    async with fleet(blue, green) as f:
        model = Model(name="iris", versions=[blue.version()])
        await f.apply(model)
        statuses: list[int] = []
        stop = asyncio.Event()

        async def call(port: int) -> None:
            while not stop.is_set():
                statuses.append(await f.ask(port, "/v2/models/iris/infer", {"x-api-key": "mine"}))

        callers = [asyncio.create_task(call(port)) for port in f.ports for _ in range(4)]
        # A version with a credential and its secret come in the revision that moves all traffic there.
        key = Secret(name="key", opaque=OpaqueValue(value=KEY))
        model.versions.append(green.version(credential=Credential(secret="key", header="x-api-key")))
        model.split.update({"green": 10_000})
        await f.apply(model, secrets=[key])
        await asyncio.sleep(0.3)
        assert {r.headers["x-api-key"] for r in green.seen} == {KEY}
        key.opaque.value = NEXT_KEY
        await f.apply(model, secrets=[key])
        async with asyncio.timeout(10):
            # Both Envoys use the new key.
            while {r.headers["x-api-key"] for r in green.seen[-32:]} != {NEXT_KEY}:
                green.arrived.clear()
                await green.arrived.wait()
        stop.set()
        await asyncio.gather(*callers)
        assert set(statuses) == {200}
        keys = [r.headers["x-api-key"] for r in green.seen]
        assert set(keys) == {KEY, NEXT_KEY}
        # The listeners and clusters did not change with the key.
        for envoy in f.envoys:
            assert (await envoy.stats("cluster_manager.cluster_(modified|updated)$"))["cluster_manager.cluster_modified"] == 0
        pages = ["config_dump?include_eds", "config_dump?resource=dynamic_active_secrets", "clusters?format=json", "stats"]
        texts = [await envoy.get(f"/{page}") for envoy in f.envoys for page in (*pages, "listeners", "certs", "server_info")]
        assert "dynamic_active_secrets" in texts[0]
        texts += [envoy.process.log_tail() for envoy in f.envoys]
        async with grpc.aio.insecure_channel(f.plane.api) as channel:
            stub = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel)
            status = await stub.FetchClientStatus(csds_pb2.ClientStatusRequest())
        assert "CredentialInjector" in text_format.MessageToString(status)
        texts.append(text_format.MessageToString(status))
        for envoy in f.envoys:
            await envoy.close()  # this writes the rest of the access log
        files = [p.read_bytes() for p in (*f.plane.data.rglob("*"), f.plane.directory / "serve.log") if p.is_file()]
        files.append(f.access_log.read_bytes())
        assert b"/v2/models/iris/infer" in files[-1]
        assert len(files) > 4
        data = [text.encode() for text in texts] + files
        marks = [form for k in (KEY, NEXT_KEY) for form in (k.encode(), base64.b64encode(k.encode())[:-4])]
        assert not [mark for mark in marks if any(mark in d for d in data)]
