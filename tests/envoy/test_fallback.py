"""Fallbacks, near endpoints and affinity in real Envoys, the newest and the oldest: who answers, and who is counted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.plane import ControlPlane, free_port
from controlplane.domain import AccessLog, Affinity, FileSink, HealthCheck, Model, Retries, Sticky, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.generated.turnout.v1 import model_pb2
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from controlplane.generated.turnout.v1.traffic_service_pb2 import GetTrafficRequest
from controlplane.snapshot import Audience
from tests.envoy.test_compiled import Rig, Upstream, edge, rig, state_of
from tests.envoy.test_matrix import OLDER, binary

pytestmark = pytest.mark.envoy

NEWEST_AND_OLDEST = pytest.mark.parametrize("envoy", ["newest", OLDER[0]])
CHECKED = HealthCheck(path="/ready", interval=0.1, timeout=1.0, healthy_threshold=1, unhealthy_threshold=1)
PATH = "/v2/models/chat/infer"


async def until(ask: Callable[[], Awaitable[object]], answer: object) -> None:
    """Ask until this answer comes."""
    async with asyncio.timeout(10):
        while await ask() != answer:  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.05)


@NEWEST_AND_OLDEST
async def test_a_fallback_answers_what_the_chosen_version_can_not(tmp_path: Path, envoy: str) -> None:
    ups = {name: Upstream(name, healthy="/ready") for name in ("green", "blue", "old")}
    at = {name: (await up.start(),) for name, up in ups.items()}
    green = Version("green", at["green"], health_check=CHECKED, fallback=("blue", "old"))
    versions = (Version("old", at["old"]), Version("blue", at["blue"], health_check=CHECKED), green)
    chat = Model("chat", ("edge",), versions, {"green": 10_000}, preview_header="x-version", retries=Retries(0))
    alone = Model("alone", ("edge",), (replace(green, fallback=()),), {"green": 10_000})
    log = tmp_path / "access.log"
    gateway = replace(edge(), answered_by_header="x-who", access_log=AccessLog(file=FileSink(str(log))))
    async with rig(state_of(gateway, chat, alone), ups, tmp_path, binary=binary(envoy)) as r:

        async def who(**headers: str) -> str:
            async with r.session.get(f"http://127.0.0.1:{gateway.port}{PATH}", headers=headers) as response:
                return response.headers["x-who"].partition(", ")[2]

        async def answers(**headers: str) -> str:
            return await r.ask(PATH, method="POST", **headers)

        await until(answers, "green")
        assert await who() == "version=green, revision="
        for status in (429, 503):
            ups["green"].status = status
            assert await answers() == "blue"
            assert await who() == "version=green/fallback/blue, revision="
            assert await who(**{"x-version": "green"}) == "version=green, revision="
            assert await answers(x_version="green") == str(status)  # a preview wants no other version's answer
            assert await r.ask("/v2/models/alone/infer") == str(status)
            ups["blue"].status = 503
            assert await answers() == "old"
            ups["blue"].status = 200
        ups["green"].status = 500  # an answer, if not a good one
        assert await answers() == "500"
        # No healthy endpoint: the version gets no request at all.
        ups["green"].status, ups["green"].healthy = 503, ""

        async def reaches_green() -> bool:
            ups["green"].seen.clear()
            assert await answers() == "blue"
            return any(path == PATH for _, path, _ in ups["green"].seen)

        await until(reaches_green, False)
        ups["green"].status = 200
        await until(answers, "green")
        async with r.session.post(f"http://{r.envoy.admin}/reopen_logs"):
            pass
    logged = {(line["version"], line["fallback"]) for line in map(json.loads, log.read_text().splitlines())}
    assert logged == {("green", None), ("green", "blue"), ("green", "old")}


@NEWEST_AND_OLDEST
async def test_a_version_with_one_healthy_endpoint_needs_no_fallback(tmp_path: Path, envoy: str) -> None:
    """Also sticky users: each comes back to the version that was chosen."""
    ups = {name: Upstream(name, healthy="/ready") for name in ("a", "b", "c", "blue")}
    at = {name: await up.start() for name, up in ups.items()}
    green = Version("green", (at["a"], at["b"], at["c"]), health_check=CHECKED, fallback=("blue",))
    versions = (Version("blue", (at["blue"],), fallback=("green",)), green)
    chat = Model("chat", ("edge",), versions, {"green": 5_000, "blue": 5_000}, sticky=Sticky(header="x-user"))
    async with rig(state_of(edge(), chat), ups, tmp_path, binary=binary(envoy)) as r:

        async def answers() -> list[str]:
            """Return the version that answers each of 40 users; all endpoints of green are green."""
            found = [await r.ask(PATH, x_user=f"u{i}") for i in range(40)]
            return ["blue" if name == "blue" else "green" if name in ups else name for name in found]

        before = await answers()
        assert set(before) == {"blue", "green"}
        for name in ("a", "b"):
            ups[name].status, ups[name].healthy = 503, ""
        await until(lambda: healthy(r.envoy, "cluster.chat/green.membership_healthy"), 1)
        await until(answers, before)  # Envoy's workers learn of it up to a second later
        assert await answers() == before
        ups["c"].status, ups["c"].healthy = 503, ""
        await until(answers, ["blue"] * 40)
        for name in ("a", "b", "c"):
            ups[name].status = 200
        await until(answers, before)


@NEWEST_AND_OLDEST
async def test_a_node_prefers_near_endpoints_as_long_as_they_are_healthy(tmp_path: Path, envoy: str) -> None:
    ups = {name: Upstream(name, healthy="/ready") for name in ("zone", "region", "far")}
    at = {name: await up.start() for name, up in ups.items()}
    places = {"zone": ("eu", "eu-a"), "region": ("eu", "eu-b"), "far": ("us", "us-a")}
    endpoints = tuple(replace(at[name], region=region, zone=zone) for name, (region, zone) in places.items())
    # An address or a name of the same endpoint.
    for_names = tuple(replace(e, host="localhost") for e in endpoints)
    chat, names = (
        Model(name, ("edge",), (Version("v1", at, health_check=CHECKED),), {"v1": 10_000})
        for name, at in (("chat", endpoints), ("names", for_names))
    )

    async def ten(r: Rig) -> set[str]:
        return {await r.ask(path) for path in (PATH, "/v2/models/names/infer") for _ in range(10)}

    async with rig(state_of(edge(), chat, names), ups, tmp_path, binary(envoy), places["zone"]) as r:
        await until(lambda: ten(r), {"zone"})
        ups["zone"].status, ups["zone"].healthy = 503, ""
        await until(lambda: ten(r), {"region"})
        ups["region"].status, ups["region"].healthy = 503, ""
        await until(lambda: ten(r), {"far"})
        ups["zone"].status = 200
        await until(lambda: ten(r), {"zone"})


@NEWEST_AND_OLDEST
async def test_a_conversation_stays_on_its_endpoint(tmp_path: Path, envoy: str) -> None:
    ups = {name: Upstream(name) for name in ("a", "b", "c", "d", "e", "f")}
    at = {name: await up.start() for name, up in ups.items()}

    def model(name: str, *green: str) -> Model:
        versions = (Version("blue", (at["e"], at["f"])), Version("green", tuple(at[n] for n in green)))
        shares = {"blue": 5_000, "green": 5_000}
        return Model(name, ("edge",), versions, shares, sticky=Sticky(header="x-user"), affinity=Affinity(header="x-chat"))

    state = state_of(edge(), model("four", "a", "b", "c", "d"), model("three", "a", "b", "d"))
    async with rig(state, ups, tmp_path, binary=binary(envoy)) as r:

        async def endpoints(model: str, user: str, chats: int = 200) -> list[str]:
            return [await r.ask(f"/v2/models/{model}/infer", x_user=user, x_chat=f"c{i}") for i in range(chats)]

        version_of_user = {f"u{i}": (await endpoints("four", f"u{i}", 1))[0] in "abcd" for i in range(10)}
        on_green = [user for user, green in version_of_user.items() if green]
        on_blue = [user for user, green in version_of_user.items() if not green]
        before = await endpoints("four", on_green[0])
        # The version follows from the user alone, and the endpoint from the conversation alone.
        assert set(before) == set("abcd")
        assert await endpoints("four", on_green[1]) == before
        assert set(await endpoints("four", on_blue[0])) == set("ef")
        assert min(Counter(before).values()) > 200 / 4 / 2
        # One of four endpoints is removed: its conversations move, and hardly any others.
        after = await endpoints("three", on_green[0])
        moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert sum(old != "c" for old, _ in moved) <= 4
        assert len(moved) <= before.count("c") + 4
        # Without the header a request goes to any endpoint.
        assert len({await r.ask("/v2/models/four/infer", x_user=on_green[0]) for _ in range(30)}) > 1


async def test_known_limit_a_fallback_has_no_upstream_filters_of_its_own(tmp_path: Path) -> None:
    """Docs: "Known limits". When this fails, Envoy runs the filters of an aggregate's clusters: allow the combination."""
    ups = {name: Upstream(name) for name in ("green", "blue")}
    at = {name: (await up.start(),) for name, up in ups.items()}
    versions = (Version("blue", at["blue"]), Version("green", at["green"], fallback=("blue",)))
    state = state_of(edge(), Model("chat", ("edge",), versions, {"green": 10_000}))
    snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)
    bootstrap: dict[str, Any] = static_bootstrap(snapshot)
    mutation = {"append": {"header": {"key": "x-cluster", "value": "own"}}}
    types = "type.googleapis.com/envoy.extensions.filters.http"
    changed = f"{types}.header_mutation.v3.HeaderMutation"
    filters = [
        {"name": "set", "typed_config": {"@type": changed, "mutations": {"request_mutations": [mutation]}}},
        {"name": "codec", "typed_config": {"@type": f"{types}.upstream_codec.v3.UpstreamCodec"}},
    ]
    for cluster in bootstrap["static_resources"]["clusters"]:
        for options in cluster.get("typed_extension_protocol_options", {}).values():
            options["http_filters"] = filters
    port = state.gateways["edge"].port
    async with Envoy(bootstrap, directory=tmp_path) as envoy, aiohttp.ClientSession() as session:
        await envoy.listens(port)
        async with session.get(f"http://127.0.0.1:{port}{PATH}") as response:
            assert response.status == 200
    assert "x-cluster" not in ups["green"].seen[0][2]
    for up in ups.values():
        assert up.runner is not None
        await up.runner.cleanup()


@pytest.fixture
def report_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the control plane ask for a report each second."""
    monkeypatch.setenv("TURNOUT_LOAD_REPORT_INTERVAL", "1")


@pytest.mark.usefixtures("report_every_second")
async def test_load_reports_show_what_a_fallback_took_over_and_no_request_is_lost(control_plane: ControlPlane) -> None:
    ups = {name: Upstream(name, healthy="/ready") for name in ("green", "blue")}
    ports = {name: (await up.start()).port for name, up in ups.items()}
    port = free_port()

    def manifest(*fallback: str) -> Manifest:
        check = model_pb2.HealthCheck(path="/ready", unhealthy_threshold=1)
        check.interval.FromMilliseconds(100)
        versions = [
            model_pb2.Version(name=name, endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=p)], health_check=check)
            for name, p in ports.items()
        ]
        versions[0].fallback.extend(fallback)
        model = model_pb2.Model(name="chat", gateways=["edge"], versions=versions, split={"green": 10_000})
        return Manifest(gateways=[Gateway(name="edge", address="127.0.0.1", port=port)], models=[model])

    async def totals() -> dict[tuple[str, str], tuple[int, int, int]]:
        answer = await control_plane.traffic.GetTraffic(GetTrafficRequest(name="models/chat"))
        return {
            (v.version, v.fallback_for): (v.totals.tries, v.totals.successes, v.totals.errors) for v in answer.traffic.versions
        }

    await control_plane.apply(manifest("blue"))
    async with control_plane.envoy("edge-1") as envoy, aiohttp.ClientSession() as session:
        await envoy.listens(port)

        async def ask() -> str:
            async with session.post(f"http://127.0.0.1:{port}{PATH}", data=b"x" * 2_000) as response:
                return str((await response.json())["version"]) if response.status == 200 else str(response.status)

        # Envoy counts a cluster from its second report on.
        while not (await totals())[("green", "")][0]:
            assert await ask() == "green"
            await asyncio.sleep(0.05)
        await asyncio.sleep(2.5)
        start = await totals()

        async def counted(asked: int, expected: dict[tuple[str, str], tuple[int, int, int]]) -> None:
            """Send requests, all answered by blue, and wait for what is counted since the start."""
            assert [await ask() for _ in range(asked)] == ["blue"] * asked

            async def since_start() -> dict[tuple[str, str], Any]:
                now = await totals()
                return {k: tuple(a - b for a, b in zip(now[k], start[k], strict=True)) for k in expected}

            try:
                await until(since_start, expected)
            except TimeoutError:
                assert await since_start() == expected

        # 429 and 503: an error of green, the first try, and a success of its fallback.
        ups["green"].status = 429
        await counted(7, {("green", ""): (7, 0, 7), ("blue", "green"): (7, 7, 0), ("blue", ""): (0, 0, 0)})
        # No healthy endpoint: green's cluster reports nothing, and yet each is an error of green.
        ups["green"].status, ups["green"].healthy = 503, ""
        stat = "cluster.chat/green.membership_healthy"
        await until(lambda: healthy(envoy, stat), 0)
        await counted(9, {("green", ""): (16, 0, 16), ("blue", "green"): (16, 16, 0), ("blue", ""): (0, 0, 0)})
        ups["green"].status = 200
        await until(ask, "green")

        # A fallback is taken away and set again under load: no route ever names a cluster that is not there.
        answers: Counter[str] = Counter()

        async def load() -> None:
            while True:
                answers[await ask()] += 1

        callers = [asyncio.create_task(load()) for _ in range(4)]
        for fallback in ((), ("blue",), (), ("blue",)):
            await control_plane.held(await control_plane.apply(manifest(*fallback)), nodes=1)
        await control_plane.held(await control_plane.split("chat", {"blue": 10_000}), nodes=1)
        await asyncio.sleep(0.2)
        for task in callers:
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        assert answers.keys() == {"green", "blue"}
        assert not {n for n, v in (await envoy.stats("update_rejected$|no_cluster$")).items() if v}
    for up in ups.values():
        assert up.runner is not None
        await up.runner.cleanup()


async def healthy(envoy: Envoy, stat: str) -> int:
    """Return the number of healthy endpoints of a cluster."""
    return int((await envoy.stats(stat))[stat])
