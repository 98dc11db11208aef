"""Rate limits in real Envoys, the newest and the oldest: who is answered 429, and when to try again."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.domain import Model, RateLimit, RateLimiting, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.snapshot import Audience
from tests.envoy.test_compiled import Upstream, edge, rig, state_of
from tests.envoy.test_fallback import NEWEST_AND_OLDEST
from tests.envoy.test_matrix import binary

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
        model("addresses", RateLimit(4, 60.0, client_address=True)),
        model("both", RateLimit(8, 60.0), RateLimit(5, 60.0, header="x-user")),
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
        assert await ask("users", 5) == {"v1": 5}
        assert await ask("addresses", 6) == {"v1": 4, "429": 2}
        assert await ask("both", 6, x_user="ann") == {"v1": 5, "429": 1}
        assert (await ask("both", 6, x_user="bob"))["v1"] <= 3
        assert (await ask("quick", 4))["429"] > 0
        await asyncio.sleep(1.2)
        assert await ask("quick", 2) == {"v1": 2}
        url = f"http://127.0.0.1:{r.ports['edge']}/v2/models/all/infer"
        async with r.session.get(url) as response:
            assert (response.status, response.headers["retry-after"]) == (429, "12")
        # A call by gRPC gets RESOURCE_EXHAUSTED.
        async with r.session.post(url, headers={"content-type": "application/grpc"}) as response:
            assert (response.status, response.headers["grpc-status"]) == (200, "8")
        reached = len(up.seen)
        await ask("all", 3)
        assert len(up.seen) == reached


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
