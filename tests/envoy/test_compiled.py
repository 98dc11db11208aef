"""What is compiled, in a real Envoy: it takes every golden case, and requests go where they should."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import grpc
import hypothesis
import pytest
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from hypothesis import given, settings
from yarl import URL

from controlplane.compiler import Compiler, audiences
from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.compiler.clusters import SYSTEM_AUTHORITIES
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.envoy import Envoy, envoy_binary
from controlplane.demo.plane import free_port
from controlplane.domain import (
    Endpoint,
    Gateway,
    HeaderRouting,
    HealthCheck,
    HostRouting,
    Mirror,
    Model,
    OutlierDetection,
    PathRewrite,
    PathRouting,
    Protocol,
    Retries,
    Routing,
    Sticky,
    Timeouts,
    UpstreamTls,
    Version,
)
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import Changes, State
from controlplane.snapshot import Audience
from tests.compiler.cases import CASES, of_envoys, read_state
from tests.compiler.strategies import states
from tests.pki import Authority, pair
from tests.tools import missing, program

pytestmark = pytest.mark.envoy


def validate(bootstrap: Mapping[str, object], directory: Path, level: str = "warning") -> str:
    """What Envoy has against a bootstrap; "" when it takes it."""
    file = directory / "bootstrap.json"
    file.write_text(json.dumps(bootstrap))
    command = [envoy_binary(), "--mode", "validate", "-l", level, "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 and not done.stderr.strip() else done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES)
def test_envoy_takes_every_golden_case(case: str, tmp_path: Path) -> None:
    if case in ("tls", "secrets") and not Path(SYSTEM_AUTHORITIES).exists():
        missing(f"{SYSTEM_AUTHORITIES} does not exist: Envoy can't load the system's authorities")
    state = read_state(case)
    for audience in of_envoys(audiences(state)):
        made = static_bootstrap(Compiler().compile(state, NO_LIVE_ENDPOINTS, audience, 1), (pair().certificate, pair().key))
        assert validate(made, tmp_path) == ""


def takes_any_state(directory: Path, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
    @given(states())
    def takes(state: State) -> None:
        snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience(tuple(sorted(state.gateways))), 1)
        assert validate(static_bootstrap(snapshot), directory, "critical") == ""

    takes()


def test_envoy_takes_any_state(tmp_path: Path) -> None:
    """Whatever the model's own rules let through, Envoy takes: here a few states, in `make soak` many."""
    takes_any_state(tmp_path, 12)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_envoy_takes_any_state_however_long_one_looks(tmp_path: Path) -> None:
    takes_any_state(tmp_path, 2000)


@pytest.mark.parametrize("name", ["delta.yaml", "sotw.yaml"])
def test_envoy_takes_the_bootstraps_in_the_folder(name: str) -> None:
    file = Path(__file__).parents[2] / "envoy" / name
    command = [envoy_binary(), "--mode", "validate", "-l", "warning", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_envoy_resolves_a_control_plane_that_is_a_name(tmp_path: Path) -> None:
    assert validate(node_bootstrap("n", xds_host="localhost", metadata={"tier": "lab"}), tmp_path) == ""


# ------------------------------------------------------------------------------------------------ requests, for real


@dataclass
class Upstream:
    """A small server that answers with its name and what it was asked."""

    name: str
    port: int = 0
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    # Requests that it closes the connection on, before it answers the first one.
    to_drop: int = 0
    status: int = 200
    healthy: str = ""  # path that is answered with 200 whatever `status` is
    delay: float = 0.0  # seconds before it answers
    tls: ssl.SSLContext | None = None
    runner: web.AppRunner | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def has_seen(self, times: int) -> None:
        """Waits until it was asked that often."""
        async with asyncio.timeout(10):
            while len(self.seen) < times:
                self.asked.clear()
                await self.asked.wait()

    async def start(self) -> Endpoint:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        assert site._server is not None
        assert isinstance(site._server, asyncio.Server)
        self.port = site._server.sockets[0].getsockname()[1]
        return Endpoint("127.0.0.1", self.port)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.raw_path, {k.lower(): v for k, v in request.headers.items()}))
        self.asked.set()
        if self.to_drop:
            self.to_drop -= 1
            assert request.transport is not None
            request.transport.abort()
        if self.delay:
            await asyncio.sleep(self.delay)
        return web.json_response(
            {"version": self.name, "path": request.raw_path}, status=200 if request.path == self.healthy else self.status
        )


@dataclass
class Rig:
    """Upstreams by name, and an Envoy that holds one state."""

    ports: dict[str, int]
    upstreams: dict[str, Upstream]
    session: aiohttp.ClientSession
    envoy: Envoy

    async def ask(self, path: str, gateway: str = "edge", method: str = "GET", **headers: str) -> str:
        """The version that answered, or the status when it was no upstream that did."""
        url = URL(f"http://127.0.0.1:{self.ports[gateway]}{path}", encoded=True)
        sent = {k.replace("_", "-"): v for k, v in headers.items()}
        async with self.session.request(method, url, headers=sent) as answer:
            if answer.content_type != "application/json":
                return str(answer.status)
            said = await answer.json()
            return f"{said['version']}" if answer.status == 200 else str(answer.status)


@asynccontextmanager
async def rig(state: State, upstreams: dict[str, Upstream], directory: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        for u in upstreams.values():
            if u.runner is not None:
                stack.push_async_callback(u.runner.cleanup)
        snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience(tuple(sorted(state.gateways))), 1)
        envoy = await stack.enter_async_context(Envoy(static_bootstrap(snapshot), directory=directory))
        await envoy.ready()
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)))
        yield Rig({n: g.port for n, g in state.gateways.items()}, upstreams, session, envoy)


def made(*objects: Gateway | Model) -> State:
    return State().applied(Changes({o.resource_name: o for o in objects}))


def edge(name: str = "edge", routing: Routing | None = None) -> Gateway:
    return Gateway(name, free_port(), "127.0.0.1", routing or PathRouting())


async def versions(*names: str) -> tuple[dict[str, Upstream], tuple[Version, ...]]:
    """An upstream for each name, started, and versions of them."""
    upstreams = {n: Upstream(n) for n in names}
    return upstreams, tuple([Version(n, (await u.start(),)) for n, u in upstreams.items()])


async def test_a_path_names_a_model(tmp_path: Path) -> None:
    ups, (iris, wine) = await versions("iris-v1", "wine-v1")
    state = made(
        edge(),
        Model("iris", ("edge",), (iris,), {"iris-v1": 10_000}),
        Model("wine", ("edge",), (wine,), {"wine-v1": 10_000}, keys=("Wine.v2", "vin")),
    )
    async with rig(state, ups, tmp_path) as r:
        asked = {
            "/v2/models/iris": "iris-v1",
            "/v2/models/iris/infer": "iris-v1",
            "/v2/models/iris/versions/7/infer": "iris-v1",
            "/v1/models/iris:predict": "iris-v1",
            "/v1/models/iris:predict?x=/v2/models/wine": "iris-v1",
            # A query string is no part of the key.
            "/v2/models/iris?x=1": "iris-v1",
            "/v2/models/iris?a/b/c": "iris-v1",
            "/v2/models/Wine.v2/infer": "wine-v1",
            "/v2/models/vin/infer": "wine-v1",
            # One model's servers are not reached by the other's name.
            "/v2/models/wine/../iris/infer": "iris-v1",
            "/v2/models/iris:unheard": "404",
            "/v2/models/wine/infer": "404",
            "/v2/models/IRIS/infer": "404",
            "/v2/models/": "404",
            "/v2/models": "404",
            "/": "404",
            "//v2/models/iris": "404",
            "/v2/models%2Firis/infer": "404",
        }
        assert {path: await r.ask(path) for path in asked} == asked
        # What the listener keeps for itself is not passed on, and what the client asked is.
        assert ups["iris-v1"].seen[5][1] == "/v2/models/iris?x=1"
        assert not [h for _, _, headers in ups["iris-v1"].seen for h in headers if h.startswith("x-turnout")]


async def test_http2_clients_are_served_as_well(tmp_path: Path) -> None:
    curl = program("curl", "an HTTP/2 client is not tested")
    ups, (v1,) = await versions("v1")
    async with rig(made(edge(), Model("iris", ("edge",), (v1,), {"v1": 10_000})), ups, tmp_path) as r:
        command = [curl, "-s", "-m", "10", "--http2-prior-knowledge", "-w", " %{http_version}"]
        url = f"http://127.0.0.1:{r.ports['edge']}/v2/models/iris?x=1"
        process = await asyncio.create_subprocess_exec(*command, url, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        assert out.decode() == '{"version": "v1", "path": "/v2/models/iris?x=1"} 2'


async def test_gateways_on_one_node_are_kept_apart(tmp_path: Path) -> None:
    ups, (public, secret) = await versions("public", "secret")
    gateways = (
        edge("edge"),
        edge("lab"),
        edge("by-segment", routing=PathRouting(segment=1, verbs=("go",))),
        edge("by-header", routing=HeaderRouting("x-model")),
        edge("by-host", routing=HostRouting()),
    )
    everywhere = tuple(g.name for g in gateways)
    state = made(
        *gateways,
        Model("iris", everywhere, (public,), {"public": 10_000}, keys=("iris", "iris.example.com")),
        Model("drug", ("lab",), (secret,), {"secret": 10_000}),
        # The same key as iris has elsewhere; here nobody else has it.
        Model("other", ("by-host",), (secret,), {"secret": 10_000}, keys=("edge", "v2")),
    )
    async with rig(state, ups, tmp_path) as r:
        assert await r.ask("/v2/models/iris", "edge") == "public"
        assert await r.ask("/v2/models/drug", "edge") == "404"
        assert await r.ask("/v2/models/drug", "lab") == "secret"
        # A client that knows the trick does not get further by it.
        for forged in ("lab/v2/models/drug", "lab"):
            assert await r.ask("/v2/models/drug", "edge", x_turnout_scope=forged) == "404"
            assert await r.ask("/", "by-header", x_turnout_scope=forged, x_model="drug") == "404"
        assert await r.ask("/iris/anything", "by-segment") == "public"
        assert await r.ask("/iris:go", "by-segment") == "public"
        assert await r.ask("/iris:predict", "by-segment") == "404"
        assert await r.ask("/v2/models/iris", "by-segment") == "404"
        assert await r.ask("/any?where", "by-header", x_model="iris") == "public"
        assert await r.ask("/v2/models/iris", "by-header", x_model="drug") == "404"
        assert await r.ask("/v2/models/iris", "by-header") == "404"
        assert await r.ask("/any", "by-host", Host="iris.example.com") == "public"
        assert await r.ask("/any", "by-host", Host="iris.example.com:8080") == "public"
        assert await r.ask("/any", "by-host", Host="iris.example.com.") == "public"
        assert await r.ask("/any", "by-host", Host="edge") == "secret"
        assert await r.ask("/any", "by-host", Host="lab") == "404"


async def test_a_preview_reaches_a_version_without_a_share(tmp_path: Path) -> None:
    ups, both = await versions("blue", "green")
    model = Model("iris", ("edge",), (*both, Version("empty")), {"blue": 10_000}, preview_header="x-version")
    async with rig(made(edge(), model), ups, tmp_path) as r:
        assert {await r.ask("/v2/models/iris") for _ in range(20)} == {"blue"}
        assert await r.ask("/v2/models/iris", x_version="green") == "green"
        assert await r.ask("/v2/models/iris", x_version="blue") == "blue"
        # Neither a version that is not there nor one that can't serve is a preview.
        assert await r.ask("/v2/models/iris", x_version="greenish") == "blue"
        assert await r.ask("/v2/models/iris", x_version="empty") == "blue"


async def test_a_mirror_gets_copies_and_its_answers_are_thrown_away(tmp_path: Path) -> None:
    ups, both = await versions("blue", "green")
    model = Model(
        "iris",
        ("edge",),
        both,
        {"blue": 10_000},
        mirror=Mirror("green"),
        preview_header="x-version",
        rewrite=PathRewrite("/v2/", "/v3/"),
    )
    ups["green"].status = 500
    async with rig(made(edge(), model), ups, tmp_path) as r:
        assert [await r.ask("/v2/models/iris", method="POST") for _ in range(5)] == ["blue"] * 5
        await ups["green"].has_seen(5)
        # A copy is a copy, also of the host and of the path that the model server sees.
        copies = {(method, path, headers["host"]) for method, path, headers in ups["green"].seen}
        assert copies == {(m, p, h["host"]) for m, p, h in ups["blue"].seen}
        assert {path for _, path, _ in copies} == {"/v3/models/iris"}
        # A preview of the mirror is not copied to it as well.
        assert await r.ask("/v2/models/iris", x_version="green") == "500"
        await r.ask("/v2/models/iris", x_version="blue")
        await ups["green"].has_seen(7)
        assert (len(ups["blue"].seen), len(ups["green"].seen)) == (6, 7)


async def test_part_of_the_requests_is_mirrored(tmp_path: Path) -> None:
    ups, both = await versions("blue", "green")
    model = Model("iris", ("edge",), both, {"blue": 10_000}, mirror=Mirror("green", 2_500))
    async with rig(made(edge(), model), ups, tmp_path) as r:
        await asyncio.gather(*(r.ask("/v2/models/iris") for _ in range(1000)))
        # 250 are expected; five standard deviations are 68.
        assert 180 < len(ups["green"].seen) < 320


@pytest.mark.parametrize("key", ["header", "cookie"])
async def test_sticky_users_move_once(key: str, tmp_path: Path) -> None:
    ups, both = await versions("blue", "green")
    sticky = Sticky(header="x-user") if key == "header" else Sticky(cookie="user")
    users = [f"user-{i}" for i in range(400)]

    # One gateway a step, so that one Envoy has all of them.
    steps = (0, 1_000, 2_500, 5_000, 9_000, 10_000)
    objects: list[Gateway | Model] = []
    for green in steps:
        objects.append(edge(f"at-{green}"))
        split = {"blue": 10_000 - green, "green": green}
        objects.append(Model(f"iris-{green}", (f"at-{green}",), both, split, keys=("iris",), sticky=sticky))
    async with rig(made(*objects), ups, tmp_path) as r:
        on_green: set[str] = set()
        for green in steps:

            async def where(user: str, green: int = green) -> str:
                sent = {"x_user": user} if key == "header" else {"cookie": f"a=b; user={user}"}
                return await r.ask("/v2/models/iris", f"at-{green}", **sent)

            answers = await asyncio.gather(*(where(u) for u in users))
            again = await asyncio.gather(*(where(u) for u in users))
            assert answers == again
            now = {u for u, version in zip(users, answers, strict=True) if version == "green"}
            assert on_green <= now, "somebody moved back"
            # Five standard deviations of a share among 400 users are 12.5 points at most.
            assert abs(len(now) / len(users) - green / 10_000) < 0.125
            on_green = now
        assert on_green == set(users)


async def test_without_a_key_each_request_is_drawn(tmp_path: Path) -> None:
    ups, both = await versions("blue", "green")
    model = Model("iris", ("edge",), both, {"blue": 5_000, "green": 5_000}, sticky=Sticky(header="x-user"))
    async with rig(made(edge(), model), ups, tmp_path) as r:
        drawn = Counter(await asyncio.gather(*(r.ask("/v2/models/iris") for _ in range(200))))
        assert set(drawn) == {"blue", "green"}
        assert min(drawn.values()) > 60


async def test_a_rewrite_takes_the_paths_that_it_fits(tmp_path: Path) -> None:
    ups, (v1,) = await versions("v1")
    rewrite = PathRewrite("/v2/models/iris/", "/api/\\1/")
    model = Model("iris", ("edge",), (v1,), {"v1": 10_000}, rewrite=rewrite)
    async with rig(made(edge(), model), ups, tmp_path) as r:
        for path in ("/v2/models/iris/infer?x=/v2/models/iris/", "/v1/models/iris:predict", "/x/y/iris/v2/models/iris/"):
            assert await r.ask(path) == "v1"
        assert [path for _, path, _ in ups["v1"].seen] == [
            "/api/\\1/infer?x=/v2/models/iris/",
            "/v1/models/iris:predict",
            "/x/y/iris/v2/models/iris/",
        ]


async def test_a_rewrite_ends_where_a_segment_does(tmp_path: Path) -> None:
    ups, (v1,) = await versions("v1")
    model = Model("p", ("edge",), (v1,), {"v1": 10_000}, keys=("p", "p2"), rewrite=PathRewrite("/v2/models/p", "/\\1"))
    rewritten = {
        "/v2/models/p": "/\\1",
        "/v2/models/p?x=/v2/models/p": "/\\1?x=/v2/models/p",
        "/v2/models/p/infer?x": "/\\1/infer?x",
        "/v2/models/p:predict": "/\\1:predict",
        "/v2/models/p2": "/v2/models/p2",
        "/v2/models/p2/infer?x": "/v2/models/p2/infer?x",
    }
    async with rig(made(edge(), model), ups, tmp_path) as r:
        assert {await r.ask(path) for path in rewritten} == {"v1"}
        assert [path for _, path, _ in ups["v1"].seen] == list(rewritten.values())


async def test_what_an_upstream_may_have_acted_on_is_not_tried_again(tmp_path: Path) -> None:
    ups, (safe, unsafe) = await versions("safe", "unsafe")
    state = made(
        edge(),
        Model("safe", ("edge",), (safe,), {"safe": 10_000}),
        Model("unsafe", ("edge",), (unsafe,), {"unsafe": 10_000}, retries=Retries(unsafe=True)),
    )
    async with rig(state, ups, tmp_path) as r:
        for u in ups.values():
            u.to_drop = 1
        assert await r.ask("/v2/models/safe", method="POST") == "503"
        assert len(ups["safe"].seen) == 1
        # Nor because a client asks for it.
        ups["safe"].to_drop = 1
        assert await r.ask("/v2/models/safe", x_envoy_retry_on="5xx,reset", x_envoy_max_retries="3") == "503"
        assert len(ups["safe"].seen) == 2
        assert await r.ask("/v2/models/unsafe", method="POST") == "unsafe"
        assert len(ups["unsafe"].seen) == 2


async def test_a_failed_connection_is_tried_again_elsewhere(tmp_path: Path) -> None:
    ups, (v1,) = await versions("v1")
    # Unequal weights: Envoy then takes turns by them, and does not draw the dead one eleven times in a row once in a while.
    alive = replace(v1.endpoints[0], weight=3)
    two = replace(v1, endpoints=(Endpoint("127.0.0.1", free_port()), alive))
    async with rig(
        made(edge(), Model("iris", ("edge",), (two,), {"v1": 10_000}, retries=Retries(attempts=10))), ups, tmp_path
    ) as r:
        assert {await r.ask("/v2/models/iris", method="POST") for _ in range(20)} == {"v1"}


async def test_one_more_try_is_enough_where_another_endpoint_answers(tmp_path: Path) -> None:
    ups, (v1,) = await versions("v1")
    # The dead one has nothing under way, so by itself Envoy would draw it again half of the time.
    two = replace(v1, endpoints=(Endpoint("127.0.0.1", free_port()), *v1.endpoints))
    model = Model("iris", ("edge",), (two,), {"v1": 10_000}, retries=Retries(attempts=1))
    async with rig(made(edge(), model), ups, tmp_path) as r:
        assert [await r.ask("/v2/models/iris", method="POST") for _ in range(50)] == ["v1"] * 50
        stats = await r.envoy.stats("cluster.iris/v1.upstream_rq_retry")
        assert stats["cluster.iris/v1.upstream_rq_retry"] > 0


async def test_endpoints_that_all_fail_are_not_all_ejected(tmp_path: Path) -> None:
    ups, (v1,) = await versions("v1")
    ups["v1"].status = 503
    watched = replace(v1, outlier_detection=OutlierDetection(consecutive_failures=1), health_check=HealthCheck(path="/ready"))
    ups["v1"].healthy = "/ready"
    async with rig(made(edge(), Model("iris", ("edge",), (watched,), {"v1": 10_000})), ups, tmp_path) as r:
        assert [await r.ask("/v2/models/iris") for _ in range(5)] == ["503"] * 5
        stats = await r.envoy.stats("outlier_detection")
        said = {name.rpartition(".")[2]: value for name, value in stats.items()}
        assert said["ejections_detected_consecutive_gateway_failure"] >= 1
        assert said["ejections_enforced_total"] == 0
        assert {h["host"] for _, path, h in ups["v1"].seen if path == "/ready"} == {"iris"}


async def test_a_health_check_may_take_longer_than_a_connection_may_idle(tmp_path: Path) -> None:
    ups, (v1,) = await versions("v1")
    ups["v1"].delay = 5
    slow = replace(v1, health_check=HealthCheck(path="/ready", timeout=10))
    async with rig(made(edge(), Model("iris", ("edge",), (slow,), {"v1": 10_000})), ups, tmp_path) as r:
        stats = await r.envoy.stats("health_check.(success|failure)")
        assert stats == {"cluster.iris/v1.health_check.success": 1, "cluster.iris/v1.health_check.failure": 0}


async def test_an_answer_may_be_silent_for_as_long_as_the_model_says(tmp_path: Path) -> None:
    ups, (quick, slow) = await versions("quick", "slow")
    state = made(
        edge(),
        Model("quick", ("edge",), (quick,), {"quick": 10_000}, timeouts=Timeouts(request=0.2)),
        Model("slow", ("edge",), (slow,), {"slow": 10_000}),
    )

    async with rig(state, ups, tmp_path) as r:
        for u in ups.values():
            u.delay = 0.6
        assert await r.ask("/v2/models/quick") == "504"
        assert await r.ask("/v2/models/slow") == "slow"


# -------------------------------------------------------------------------------------------------- other ways upstream


async def test_tls_believes_whom_it_is_told_to(tmp_path: Path) -> None:
    authority = Authority()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.pair("iris.example", "*.wild.example", "127.0.0.1").files(tmp_path, "iris"))
    upstream = Upstream("v1", tls=context)
    endpoint = await upstream.start()
    ca = authority.certificate
    believed = {
        "name": (UpstreamTls("iris.example", ca), "v1"),
        "wildcard": (UpstreamTls("a.wild.example", ca), "v1"),
        "address": (UpstreamTls("127.0.0.1", ca), "v1"),
        "waived": (UpstreamTls(insecure_skip_verify=True), "v1"),
        "another-name": (UpstreamTls("wine.example", ca), "503"),
        "another-address": (UpstreamTls("127.0.0.2", ca), "503"),
        "another-authority": (UpstreamTls("iris.example", read_authority()), "503"),
    }
    models = [Model(n, ("edge",), (Version("v1", (endpoint,), tls=tls),), {"v1": 10_000}) for n, (tls, _) in believed.items()]
    async with rig(made(edge(), *models), {"v1": upstream}, tmp_path) as r:
        assert {n: await r.ask(f"/v2/models/{n}") for n in believed} == {n: said for n, (_, said) in believed.items()}


def read_authority() -> str:
    """An authority that has nothing to do with the test's certificate."""
    tls = read_state("tls").models["iris"].version("own").tls
    assert tls is not None
    return tls.ca_certificates_pem


async def test_grpc_is_served_and_its_health_is_asked(tmp_path: Path) -> None:
    health = HealthServicer()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    checked = HealthCheck(interval=0.1)
    version = Version("v1", (Endpoint("127.0.0.1", port),), Protocol.GRPC, health_check=checked)
    gateway = edge(routing=HeaderRouting("x-model"))
    try:
        async with rig(made(gateway, Model("iris", ("edge",), (version,), {"v1": 10_000})), {}, tmp_path) as r:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{r.ports['edge']}") as channel:
                check = health_pb2_grpc.HealthStub(channel).Check
                answer = await check(health_pb2.HealthCheckRequest(service=""), metadata=(("x-model", "iris"),), timeout=10)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await check(health_pb2.HealthCheckRequest(service=""), metadata=(("x-model", "wine"),), timeout=10)
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            stats = await r.envoy.stats("iris/v1.health_check.(success|failure)")
            assert stats["cluster.iris/v1.health_check.success"] >= 1
            assert stats["cluster.iris/v1.health_check.failure"] == 0
    finally:
        await server.stop(0)
