"""Rate limits, fallbacks and sticky splits of one model through path, header, host and body gateways of one Envoy."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.demo.ports import free_port
from controlplane.domain import (
    BodyRouting,
    Endpoint,
    HeaderRouting,
    HostRouting,
    Model,
    PathRouting,
    RateLimit,
    RateLimiting,
    Routing,
    Sticky,
    Version,
)
from tests.envoy.test_compiled import Rig, Upstream, edge, rig, state_of
from tests.envoy.test_fallback import NEWEST_AND_OLDEST
from tests.envoy.test_matrix import binary

pytestmark = pytest.mark.envoy

# For each kind of gateway: the path and the headers that name a model. The body names it everywhere.
KINDS: dict[str, tuple[Routing, str, dict[str, str]]] = {
    "path": (PathRouting(), "/v2/models/{model}/infer", {}),
    "header": (HeaderRouting("x-model"), "/v1/infer", {"x-model": "{model}"}),
    "host": (HostRouting(), "/v1/infer", {"host": "{model}"}),
    "body": (BodyRouting(), "/v1/chat/completions", {}),
}
USERS = [f"u{i}" for i in range(12)]


async def ask(r: Rig, kind: str, model: str, user: str = "") -> tuple[str, str, str]:
    """Return the version that answered, or the status of an error; the version that was chosen; and `retry-after`."""
    _, path, fields = KINDS[kind]
    headers = {name: value.format(model=model) for name, value in fields.items()}
    headers |= {"content-type": "application/json"} | ({"x-user": user} if user else {})
    url = f"http://127.0.0.1:{r.ports[kind]}{path.format(model=model)}"
    async with r.session.post(url, data=json.dumps({"model": model}), headers=headers) as response:
        answer = await response.json()
        assert response.status == 200 or "error" in answer
        chosen = response.headers.get("x-who", "").partition("version=")[2].partition(",")[0]
        return answer.get("version", str(response.status)), chosen, response.headers.get("retry-after", "")


@NEWEST_AND_OLDEST
async def test_limits_fallbacks_and_sticky_splits_are_the_same_at_every_kind_of_gateway(tmp_path: Path, envoy: str) -> None:
    ups = {name: Upstream(name) for name in ("blue", "green")}
    blue, green = [Version(name, (await up.start(),)) for name, up in ups.items()]
    split, sticky = {"blue": 5_000, "green": 5_000}, Sticky(header="x-user")
    by_user, for_all = (RateLimit(4, 60.0, header="x-user"),), (RateLimit(4, 60.0),)
    green = replace(green, fallback=("blue",))
    # No connection to this green can be made.
    gone = replace(green, endpoints=(Endpoint("127.0.0.1", free_port()),))
    all_kinds = tuple(KINDS)
    models = (
        Model("chat", all_kinds, (blue, green), split, sticky=sticky, rate_limits=by_user),
        Model("twin", all_kinds, (blue, green), split, sticky=sticky, rate_limits=by_user),
        Model("down", all_kinds, (blue, gone), {"green": 10_000}, rate_limits=for_all),
    )
    gateways = [
        replace(edge(kind, routing), rate_limiting=RateLimiting(), answered_by_header="x-who")
        for kind, (routing, _, _) in KINDS.items()
    ]
    async with rig(state_of(*gateways, *models), ups, tmp_path, binary=binary(envoy)) as r:

        async def answers(kind: str) -> dict[str, tuple[str, str]]:
            """Return for each user the version that answers and the version that was chosen."""
            return {user: (await ask(r, kind, "chat", user))[:2] for user in USERS}

        chosen = {user: version for user, (version, _) in (await answers("path")).items()}
        assert set(chosen.values()) == {"blue", "green"}
        own = {user: (version, version) for user, version in chosen.items()}
        taken_over = own | {u: ("blue", "green/fallback/blue") for u, version in chosen.items() if version == "green"}
        assert await answers("path") == own
        for kind in KINDS:
            if kind != "path":
                # A user has the same version whichever gateway the request enters by, and limits of its own at each.
                assert await answers(kind) == own, kind
                assert await answers(kind) == own, kind
            ups["green"].status = 503
            assert await answers(kind) == taken_over, kind
            ups["green"].status = 200
            assert await answers(kind) == own, kind
            # Each user has had four answers. A request that a fallback answered counts once.
            reached = len(ups["blue"].seen) + len(ups["green"].seen)
            assert {await ask(r, kind, "chat", user) for user in USERS} == {("429", "", "15")}, kind
            assert len(ups["blue"].seen) + len(ups["green"].seen) == reached
            # Others have more: another user, another model with the same limits, and requests that name no user.
            assert (await ask(r, kind, "chat", "other"))[0] in ups, kind
            assert (await ask(r, kind, "twin", USERS[0]))[0] == chosen[USERS[0]], kind
            assert {(await ask(r, kind, "chat"))[0] for _ in range(6)} <= set(ups), kind
            assert Counter([(await ask(r, kind, "down"))[:2] for _ in range(6)]) == {
                ("blue", "green/fallback/blue"): 4,
                ("429", ""): 2,
            }, kind
