"""Rate limits in real Envoys, the newest and the oldest: who is answered 429, and when to try again."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp import web

from controlplane.compiler import Compiler
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.domain import Model, RateLimit, RateLimiting, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from controlplane.snapshot import Audience
from tests.envoy.open_connections import OpenConnections
from tests.envoy.test_compiled import Upstream, edge, rig, state_of
from tests.envoy.test_fallback import NEWEST_AND_OLDEST
from tests.envoy.test_matrix import binary
from tests.envoy.upstreams import http_server

pytestmark = pytest.mark.envoy


@NEWEST_AND_OLDEST
async def test_requests_above_a_limit_are_answered_429(tmp_path: Path, envoy: str) -> None:
    up = Upstream("v1")
    v1 = Version("v1", (await up.start(),))

    def model(name: str, *limits: RateLimit) -> Model:
        return Model(name, ("edge",), (v1,), {"v1": 10_000}, rate_limits=limits)

    models = (
        model("free"),
        model("all", RateLimit(5, 60.0)),
        model("users", RateLimit(3, 60.0, header="x-user")),
        model("twin", RateLimit(3, 60.0, header="x-user")),
        model("twice", RateLimit(2, header="x-user"), RateLimit(3, 60.0, header="x-user")),
        model("addresses", RateLimit(4, 60.0, client_address=True)),
        model("both", RateLimit(8, 60.0), RateLimit(5, 60.0, header="x-user")),
        model("cookies", RateLimit(3, 60.0, cookie="Session")),
        model("quick", RateLimit(2)),
    )
    gateway = replace(edge(), rate_limiting=RateLimiting(max_users=50))
    async with rig(state_of(gateway, *models), {"v1": up}, tmp_path, binary=binary(envoy)) as r:

        async def ask(name: str, times: int, **headers: str) -> Counter[str]:
            return Counter([await r.ask(f"/v2/models/{name}/infer", **headers) for _ in range(times)])

        assert await ask("free", 20) == {"v1": 20}
        assert await ask("all", 9) == {"v1": 5, "429": 4}
        assert await ask("users", 5, x_user="ann") == {"v1": 3, "429": 2}
        assert await ask("users", 5, x_user="bob") == {"v1": 3, "429": 2}
        # A model with the same limits has counts of its own.
        assert await ask("twin", 5, x_user="ann") == {"v1": 3, "429": 2}
        assert (await ask("twice", 4, x_user="ann"))["429"] > 0
        # Without a user there is no limit, and an empty value is no user.
        assert await ask("users", 5) == {"v1": 5}
        assert await ask("users", 5, x_user="") == {"v1": 5}
        assert await ask("cookies", 5, cookie="a=b; Session=ann") == {"v1": 3, "429": 2}
        assert await ask("cookies", 5, cookie="Session=bob; c=d") == {"v1": 3, "429": 2}
        assert await ask("cookies", 5, cookie="Session=; session=ann") == {"v1": 5}
        assert await ask("addresses", 6) == {"v1": 4, "429": 2}
        assert await ask("both", 6, x_user="ann") == {"v1": 5, "429": 1}
        assert (await ask("both", 6, x_user="bob"))["v1"] <= 3
        assert (await ask("quick", 4))["429"] > 0
        await asyncio.sleep(1.2)
        assert await ask("quick", 2) == {"v1": 2}
        assert (await ask("twice", 4, x_user="ann"))["v1"] <= 1
        url = f"http://127.0.0.1:{r.ports['edge']}/v2/models/all/infer"
        async with r.session.get(url) as response:
            assert (response.status, response.headers["retry-after"]) == (429, "12")
        # A call by gRPC gets RESOURCE_EXHAUSTED.
        async with r.session.post(url, headers={"content-type": "application/grpc"}) as response:
            assert (response.status, response.headers["grpc-status"]) == (200, "8")
            assert response.headers["retry-after"] == "12"
        reached = len(up.seen)
        await ask("all", 3)
        assert len(up.seen) == reached
        assert "rate_limits" not in (tmp_path / "envoy.log").read_text(), "Envoy warns of descriptors in routes"


async def test_known_limit_a_limit_is_not_charged_after_the_response(tmp_path: Path) -> None:
    """Docs: "Known limits". When this fails, Envoy's local rate limit can charge tokens: limit them, too."""
    up = Upstream("v1")
    limits = (RateLimit(5, 60.0),)
    iris = Model("iris", ("edge",), (Version("v1", (await up.start(),)),), {"v1": 10_000}, rate_limits=limits)
    gateway = replace(edge(), rate_limiting=RateLimiting())
    snapshot = Compiler().compile(state_of(gateway, iris), NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)
    bootstrap: dict[str, Any] = static_bootstrap(snapshot)
    text = json.dumps(bootstrap)
    # Each request costs six, when it has been answered. A limit that could do that would accept one, and then none.
    changed = text.replace(
        '"rate_limits": [{', '"rate_limits": [{"apply_on_stream_done": true, "hits_addend": {"number": "6"}, '
    )
    assert changed != text
    async with Envoy(json.loads(changed), directory=tmp_path) as envoy, aiohttp.ClientSession() as session:
        await envoy.listens(gateway.port)
        statuses = []
        for _ in range(3):
            async with session.get(f"http://127.0.0.1:{gateway.port}/v2/models/iris/infer") as response:
                statuses.append(response.status)
    assert statuses != [200, 429, 429]
    assert up.runner is not None
    await up.runner.cleanup()


@dataclass
class Stream:
    """A server whose answers are streams of four seconds."""

    pieces: int = 80
    started: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.started += 1
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(self.pieces):
            await response.write(b"x" * 100)
            await asyncio.sleep(0.05)
        return response


async def test_other_limits_apply_at_once_and_end_no_connection_and_no_stream(control_plane: ControlPlane) -> None:
    """In both xDS variants. The streams last longer than the time in which Envoy drains a listener that is replaced."""
    up, stream = Upstream("v1"), Stream()
    quick = (await up.start()).port
    ports = {node: free_port() for node in ("delta", "sotw")}
    async with http_server(stream.answer) as slow, AsyncExitStack() as stack:

        def manifest(*limits: model_pb2.RateLimit) -> Manifest:
            gateways = [
                gateway_pb2.Gateway(
                    name=node,
                    address="127.0.0.1",
                    port=port,
                    nodes=gateway_pb2.NodeSelector(ids=[node]),
                    rate_limiting=gateway_pb2.RateLimiting(),
                )
                for node, port in ports.items()
            ]
            models = [
                model_pb2.Model(
                    name=name,
                    gateways=list(ports),
                    versions=[model_pb2.Version(name="v1", endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=port)])],
                )
                for name, port in (("quick", quick), ("slow", slow))
            ]
            models[0].rate_limits.extend(limits)
            return Manifest(gateways=gateways, models=models)

        await control_plane.apply(manifest())
        variants: tuple[Literal["delta", "sotw"], ...] = ("delta", "sotw")
        envoys = {v: control_plane.envoy(v, v) for v in variants}
        for envoy in envoys.values():
            envoy.process.command.extend(("--drain-time-s", "1"))
            await stack.enter_async_context(envoy)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for node, port in ports.items():
            await envoys[node].listens(port)  # type: ignore[index]

        async def long(port: int) -> int:
            async with session.get(f"http://127.0.0.1:{port}/v2/models/slow/infer") as response:
                return len(await response.read())

        streams = [asyncio.create_task(long(port)) for port in ports.values()]
        connections = OpenConnections()
        for port in ports.values():
            await connections.open("127.0.0.1", port, "quick")
        await connections.wait_for_more(20)
        user = model_pb2.RateLimit(requests=2, header="x-user")
        user.per.FromSeconds(600)
        for limits in ((model_pb2.RateLimit(requests=1_000_000),), (user,), (), (user,)):
            await control_plane.held(await control_plane.apply(manifest(*limits)), nodes=2)
            await connections.wait_for_more(20)

        async def statuses(port: int) -> list[int]:
            url, headers = f"http://127.0.0.1:{port}/v2/models/quick/infer", {"x-user": "ann"}
            return [(await session.get(url, headers=headers)).status for _ in range(3)]

        assert [await statuses(port) for port in ports.values()] == [[200, 200, 429]] * 2
        # A switch leaves the counts.
        await control_plane.held(await control_plane.apply(manifest(user), "again"), nodes=2)
        await control_plane.held(await control_plane.split("quick", {"v1": 10_000}), nodes=2)
        assert [await statuses(port) for port in ports.values()] == [[429] * 3] * 2
        assert await asyncio.gather(*streams) == [stream.pieces * 100] * 2
        assert (stream.started, all(c.working for c in connections.all)) == (2, True)
        await connections.stop()
        assert connections.answers.keys() == {"200"}
        for envoy in envoys.values():
            stats = await envoy.stats(
                "listener_in_place_updated$|listener_modified$|update_rejected$|extension_config_discovery"
            )
            assert not {n for n, v in stats.items() if v and n.endswith(("updated", "modified", "rejected", "fail"))}, stats
    assert up.runner is not None
    await up.runner.cleanup()
