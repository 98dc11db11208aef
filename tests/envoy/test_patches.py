"""The examples of patches in real Envoys, the newest and the oldest: external authorisation, JSON Web Tokens, Lua."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import aiohttp
import grpc
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from google.rpc import code_pb2

from controlplane.api.convert import CONVERTERS
from controlplane.api.convert.gateway import gateway_to_proto
from controlplane.api.convert.model import model_to_proto
from controlplane.cli.decode import Decoder
from controlplane.cli.document import documents
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.domain import Endpoint, Gateway, Model, NodeSelector, Object, Version
from controlplane.domain.collections import COLLECTIONS
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from tests.envoy.test_compiled import Upstream, rig, state_of
from tests.envoy.test_fallback import NEWEST_AND_OLDEST
from tests.envoy.test_matrix import binary
from tests.envoy.upstreams import http_server

pytestmark = pytest.mark.envoy

VARIANTS: tuple[Literal["delta", "sotw"], ...] = ("delta", "sotw")
EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str, *ports: tuple[str, int]) -> list[Object]:
    """Return the objects of an example on free ports. The gateway has the example's name, and so do its models.

    `ports` are the ports of the servers of the example, which run on this machine, each with the text that it replaces.
    """
    text = (EXAMPLES / f"patch-{name}.yaml").read_text()
    for old, new in (
        *((old, f"address: 127.0.0.1, port_value: {port}") for old, port in ports),
        ("name: edge", f"name: {name}"),
        ("gateways: [edge]", f"gateways: [{name}]"),
        ("gateways/edge/", f"gateways/{name}/"),
        ("port: 10000", f"port: {free_port()}"),
        ("name: iris", f"name: {name}-iris"),
    ):
        assert old in text or old == "gateways/edge/", old
        text = text.replace(old, new)
    decoder = Decoder()
    for document in documents(text, name):
        decoder.add(document, name)
    assert decoder.problems == []
    return [CONVERTERS[row.noun].from_proto(m, None) for row in COLLECTIONS for m in getattr(decoder.manifest, row.name)]


class Authorization(external_auth_pb2_grpc.AuthorizationServicer):  # type: ignore[misc]
    """Allows the requests that have the header `x-pass`, or all."""

    asked = 0
    allow_all = False

    async def Check(self, request: external_auth_pb2.CheckRequest, context: object) -> external_auth_pb2.CheckResponse:
        self.asked += 1
        response = external_auth_pb2.CheckResponse()
        allowed = self.allow_all or "x-pass" in request.attributes.request.http.headers
        response.status.code = code_pb2.OK if allowed else code_pb2.PERMISSION_DENIED
        return response


@asynccontextmanager
async def authorization() -> AsyncIterator[tuple[Authorization, int]]:
    """Run a service for external authorisation. Yield it and its port."""
    server, service = grpc.aio.server(), Authorization()
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield service, port
    finally:
        await server.stop(0)


class Identity:
    """An identity provider: it signs tokens, and serves its public key."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())

    def running(self) -> AbstractAsyncContextManager[int]:
        """Serve the public key. Yield the port."""
        numbers = self.key.public_key().public_numbers()
        x, y = (_encoded(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
        keys = {"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "x": x, "y": y}]}

        async def answer(request: web.Request) -> web.Response:
            return web.json_response(keys)

        return http_server(answer)

    def token(self, audience: str) -> str:
        """Return a token of the user ann for an audience."""
        claims = {"iss": "https://identity.internal", "aud": audience, "sub": "ann", "exp": 1 << 40}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "ES256"}, claims))
        r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(SHA256())))
        return f"{text}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _at(obj: Object, port: int) -> Object:
    """Return a model with this port for all its endpoints; another object as it is."""
    if not isinstance(obj, Model):
        return obj
    versions = (replace(v, endpoints=tuple(replace(e, port=port) for e in v.endpoints)) for v in obj.versions)
    return replace(obj, versions=tuple(versions))


@NEWEST_AND_OLDEST
async def test_the_filters_that_the_examples_add_decide_about_requests(tmp_path: Path, envoy: str) -> None:
    identity = Identity()
    up = Upstream("blue")
    async with authorization() as (service, authz_port), identity.running() as keys_port:
        await up.start()
        objects = [
            *example("ext-authz", ("address: authz.internal, port_value: 9191", authz_port)),
            *example("jwt", ("address: identity.internal, port_value: 8080", keys_port)),
            *example("lua"),
        ]
        # All models are at the same server.
        objects = [_at(obj, up.port) for obj in objects]
        async with rig(state_of(*objects), {"blue": up}, tmp_path, binary=binary(envoy)) as r:
            path = "/v2/models/ext-authz-iris/infer"
            assert await r.ask(path, "ext-authz") == "403"
            assert await r.ask(path, "ext-authz", x_pass="1") == "blue"
            asked = service.asked
            assert asked == 2
            assert await r.ask("/v2/models/open/infer", "ext-authz") == "blue"
            assert service.asked == asked

            path = "/v2/models/jwt-iris/infer"
            assert await r.ask(path, "jwt") == "401"
            assert await r.ask(path, "jwt", authorization=f"Bearer {identity.token('models')}") == "blue"
            assert up.seen[-1][2]["x-user"] == "ann"
            assert "authorization" not in up.seen[-1][2]
            assert await r.ask(path, "jwt", authorization=f"Bearer {identity.token('others')}") == "403"
            assert await r.ask(path, "jwt", authorization=f"Bearer {Identity().token('models')}") == "401"

            path = f"http://127.0.0.1:{r.ports['lua']}/v2/models/lua-iris/infer"
            async with r.session.get(path) as response:
                assert (response.status, response.headers.get("x-billed-to")) == (403, None)
            async with r.session.get(path, headers={"x-team": "a"}) as response:
                assert (response.status, response.headers["x-billed-to"]) == (200, "a")
        assert len(up.seen) == 4


async def test_patches_come_and_go_without_a_lost_request(control_plane: ControlPlane) -> None:
    """In both xDS variants: the cluster that the filter needs comes before the listener."""
    up = Upstream("blue")
    await up.start()
    async with authorization() as (service, authz_port), AsyncExitStack() as stack:
        service.allow_all = True
        gateways: list[Gateway] = []
        for node in VARIANTS:
            gateway, *_ = example("ext-authz", ("address: authz.internal, port_value: 9191", authz_port))
            assert isinstance(gateway, Gateway)
            patches = tuple(replace(p, content=p.content.replace("/ext-authz/", f"/{node}/")) for p in gateway.patches)
            nodes = NodeSelector(ids=(node,))
            gateways.append(replace(gateway, name=node, address="127.0.0.1", nodes=nodes, patches=patches))
        blue = Version("blue", (Endpoint("127.0.0.1", up.port),))
        iris = model_to_proto(Model("iris", VARIANTS, (blue,), {"blue": 10_000}))

        async def apply(gateways: list[Gateway]) -> None:
            manifest = Manifest(gateways=[gateway_to_proto(g) for g in gateways], models=[iris])
            await control_plane.held(await control_plane.apply(manifest), nodes=2)

        plain = [replace(gateway, patches=()) for gateway in gateways]
        # Open connections of the old listener still ask the service until they end. So the cluster stays for now.
        without_filter = [replace(gateway, patches=gateway.patches[:1]) for gateway in gateways]
        manifest = Manifest(gateways=[gateway_to_proto(g) for g in plain], models=[iris])
        await control_plane.apply(manifest)
        for gateway, variant in zip(gateways, VARIANTS, strict=True):
            envoy = await stack.enter_async_context(control_plane.envoy(variant, variant))
            await envoy.listens(gateway.port)
        answers: Counter[int] = Counter()

        async def ask(gateway: Gateway, force_close: bool) -> None:
            connector = aiohttp.TCPConnector(force_close=force_close)
            async with aiohttp.ClientSession(connector=connector) as session:
                while True:
                    async with session.get(f"http://127.0.0.1:{gateway.port}/v2/models/iris/infer") as response:
                        answers[response.status] += 1

        asking = [asyncio.create_task(ask(gateway, force)) for gateway in gateways for force in (False, True)]
        for patched in (gateways, without_filter, gateways):
            before = answers.total()
            await apply(patched)
            while answers.total() < before + 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert not any(task.done() for task in asking)
            assert service.asked > 0
        # Without the filter and its cluster at once, open connections would get 403.
        with pytest.raises(grpc.RpcError, match="remove the filters first"):
            await apply(plain)
        for task in asking:
            task.cancel()
        assert answers.keys() == {200}
    assert up.runner is not None
    await up.runner.cleanup()
