"""Compiled snapshots in a real Envoy: it accepts every golden case, and routes requests to the right versions."""

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
from controlplane.demo.ports import free_port
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
    Secret,
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
    """Return the error with which Envoy refuses a bootstrap; "" if it accepts the bootstrap."""
    file = directory / "bootstrap.json"
    file.write_text(json.dumps(bootstrap))
    command = [envoy_binary(), "--mode", "validate", "-l", level, "-c", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if result.returncode == 0 and not result.stderr.strip() else result.stdout + result.stderr


@pytest.mark.parametrize("case", CASES)
def test_envoy_accepts_every_golden_case(case: str, tmp_path: Path) -> None:
    if case in ("tls", "secrets") and not Path(SYSTEM_AUTHORITIES).exists():
        missing(f"{SYSTEM_AUTHORITIES} does not exist: Envoy can't load the system's authorities")
    state = read_state(case)
    for audience in of_envoys(audiences(state)):
        snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, audience, 1)
        assert validate(static_bootstrap(snapshot, (pair().certificate, pair().key)), tmp_path) == ""


def check_random_states(directory: Path, examples: int) -> None:
    """Check that Envoy accepts what is compiled from this many random states."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
    @given(states())
    def check(state: State) -> None:
        snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience(tuple(sorted(state.gateways))), 1)
        assert validate(static_bootstrap(snapshot), directory, "critical") == ""

    check()


def test_envoy_accepts_every_valid_state(tmp_path: Path) -> None:
    """Envoy accepts every state that the domain's rules accept. This test tries a few states, and `make soak` many."""
    check_random_states(tmp_path, 12)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_envoy_accepts_thousands_of_valid_states(tmp_path: Path) -> None:
    check_random_states(tmp_path, 2000)


@pytest.mark.parametrize("name", ["delta.yaml", "sotw.yaml"])
def test_envoy_accepts_the_bootstraps_in_the_folder_envoy(name: str) -> None:
    file = Path(__file__).parents[2] / "envoy" / name
    command = [envoy_binary(), "--mode", "validate", "-l", "warning", "-c", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr.strip()) == (0, "")


def test_envoy_accepts_a_host_name_of_the_control_plane(tmp_path: Path) -> None:
    assert validate(node_bootstrap("n", xds_host="localhost", metadata={"tier": "lab"}), tmp_path) == ""


# ------------------------------------------------------------------------------------------------------ real requests


@dataclass
class Upstream:
    """A small server that answers with its name and the path of the request."""

    name: str
    port: int = 0
    # (method, path, headers) of each request.
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    # The next requests up to this number are not answered: the server closes their connection.
    to_drop: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)  # of every answer
    healthy: str = ""  # this path is answered with 200, whatever `status` is
    delay: float = 0.0  # seconds before an answer
    tls: ssl.SSLContext | None = None
    runner: web.AppRunner | None = None
    requested: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for_requests(self, count: int) -> None:
        """Wait until this many requests have come."""
        async with asyncio.timeout(10):
            while len(self.seen) < count:
                self.requested.clear()
                await self.requested.wait()

    async def start(self) -> Endpoint:
        """Start the server on a free port. Return its endpoint."""
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
        self.requested.set()
        if self.to_drop:
            self.to_drop -= 1
            assert request.transport is not None
            request.transport.abort()
        if self.delay:
            await asyncio.sleep(self.delay)
        return web.json_response(
            {"version": self.name, "path": request.raw_path},
            status=200 if request.path == self.healthy else self.status,
            headers=self.headers,
        )


@dataclass
class Rig:
    """An Envoy that holds one state, its upstreams, and a client."""

    # Of the gateways, by name.
    ports: dict[str, int]
    # By name of the version.
    upstreams: dict[str, Upstream]
    session: aiohttp.ClientSession
    envoy: Envoy

    async def ask(self, path: str, gateway: str = "edge", method: str = "GET", **headers: str) -> str:
        """Return the version that answered a request; its status if that is not 200 or Envoy answered."""
        url = URL(f"http://127.0.0.1:{self.ports[gateway]}{path}", encoded=True)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, url, headers=fields) as response:
            if response.content_type != "application/json" or response.status != 200:
                return str(response.status)
            return str((await response.json())["version"])


@asynccontextmanager
async def rig(
    state: State,
    upstreams: dict[str, Upstream],
    directory: Path,
    binary: str | None = None,
    place: tuple[str, str] = ("", ""),
) -> AsyncIterator[Rig]:
    """Run an Envoy with the static bootstrap of a state. Close the upstreams at the end.

    `place` is the Envoy's region and zone. `binary` defaults to the newest Envoy.
    """
    async with AsyncExitStack() as stack:
        for u in upstreams.values():
            if u.runner is not None:
                stack.push_async_callback(u.runner.cleanup)
        audience = Audience(tuple(sorted(state.gateways)), place=place)
        snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, audience, 1)
        envoy = await stack.enter_async_context(Envoy(static_bootstrap(snapshot), directory=directory, binary=binary))
        await envoy.ready()
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)))
        yield Rig({n: g.port for n, g in state.gateways.items()}, upstreams, session, envoy)


def state_of(*objects: Gateway | Model | Secret) -> State:
    """Return a state with these objects."""
    return State().applied(Changes({o.resource_name: o for o in objects}))


def edge(name: str = "edge", routing: Routing | None = None) -> Gateway:
    """Return a gateway on a free port."""
    return Gateway(name, free_port(), "127.0.0.1", routing or PathRouting())


async def versions(*names: str) -> tuple[dict[str, Upstream], tuple[Version, ...]]:
    """Start an upstream for each name. Return the upstreams, and a version with each."""
    upstreams = {n: Upstream(n) for n in names}
    return upstreams, tuple([Version(n, (await u.start(),)) for n, u in upstreams.items()])


async def test_the_path_selects_the_model(tmp_path: Path) -> None:
    ups, (iris, wine) = await versions("iris-v1", "wine-v1")
    state = state_of(
        edge(),
        Model("iris", ("edge",), (iris,), {"iris-v1": 10_000}),
        Model("wine", ("edge",), (wine,), {"wine-v1": 10_000}, keys=("Wine.v2", "vin")),
    )
    async with rig(state, ups, tmp_path) as r:
        expected = {
            "/v2/models/iris": "iris-v1",
            "/v2/models/iris/infer": "iris-v1",
            "/v2/models/iris/versions/7/infer": "iris-v1",
            "/v1/models/iris:predict": "iris-v1",
            "/v1/models/iris:predict?x=/v2/models/wine": "iris-v1",
            # The query string is not part of the key.
            "/v2/models/iris?x=1": "iris-v1",
            "/v2/models/iris?a/b/c": "iris-v1",
            "/v2/models/Wine.v2/infer": "wine-v1",
            "/v2/models/vin/infer": "wine-v1",
            # Envoy normalises the path before it looks for the key.
            "/v2/models/wine/../iris/infer": "iris-v1",
            "/v2/models/iris:unheard": "404",
            "/v2/models/wine/infer": "404",
            "/v2/models/IRIS/infer": "404",
            "/v2/models/": "404",
            "/v2/models": "404",
            "//v2/models/iris": "iris-v1",
            "/v2/models%2Firis/infer": "404",
        }
        assert {path: await r.ask(path) for path in expected} == expected
        # The upstream gets the client's path, and not the header that the listener adds to find the scope.
        assert ups["iris-v1"].seen[5][1] == "/v2/models/iris?x=1"
        assert not [h for _, _, headers in ups["iris-v1"].seen for h in headers if h.startswith("x-turnout")]


async def test_http2_clients_are_served(tmp_path: Path) -> None:
    curl = program("curl", "an HTTP/2 client is not tested")
    ups, (v1,) = await versions("v1")
    async with rig(state_of(edge(), Model("iris", ("edge",), (v1,), {"v1": 10_000})), ups, tmp_path) as r:
        command = [curl, "-s", "-m", "10", "--http2-prior-knowledge", "-w", " %{http_version}"]
        url = f"http://127.0.0.1:{r.ports['edge']}/v2/models/iris?x=1"
        process = await asyncio.create_subprocess_exec(*command, url, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        assert out.decode() == '{"version": "v1", "path": "/v2/models/iris?x=1"} 2'


async def test_a_gateway_serves_only_its_own_models(tmp_path: Path) -> None:
    ups, (public, secret) = await versions("public", "secret")
    gateways = (
        edge("edge"),
        edge("lab"),
        edge("by-segment", routing=PathRouting(segment=1, verbs=("go",))),
        edge("by-header", routing=HeaderRouting("x-model")),
        edge("by-host", routing=HostRouting()),
    )
    everywhere = tuple(g.name for g in gateways)
    state = state_of(
        *gateways,
        Model("iris", everywhere, (public,), {"public": 10_000}, keys=("iris", "iris.example.com")),
        Model("drug", ("lab",), (secret,), {"secret": 10_000}),
        # `edge` is the name of a gateway, and `v2` a segment of the paths above; both are allowed as keys.
        Model("other", ("by-host",), (secret,), {"secret": 10_000}, keys=("edge", "v2")),
    )
    async with rig(state, ups, tmp_path) as r:
        assert await r.ask("/v2/models/iris", "edge") == "public"
        assert await r.ask("/v2/models/drug", "edge") == "404"
        assert await r.ask("/v2/models/drug", "lab") == "secret"
        # A client can't reach a model of another gateway by sending the scope's header itself.
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
    async with rig(state_of(edge(), model), ups, tmp_path) as r:
        assert {await r.ask("/v2/models/iris") for _ in range(20)} == {"blue"}
        assert await r.ask("/v2/models/iris", x_version="green") == "green"
        assert await r.ask("/v2/models/iris", x_version="blue") == "blue"
        # The header is ignored for a version that does not exist or has no endpoints.
        assert await r.ask("/v2/models/iris", x_version="greenish") == "blue"
        assert await r.ask("/v2/models/iris", x_version="empty") == "blue"


async def test_a_mirror_gets_copies_and_its_answers_are_dropped(tmp_path: Path) -> None:
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
    async with rig(state_of(edge(), model), ups, tmp_path) as r:
        assert [await r.ask("/v2/models/iris", method="POST") for _ in range(5)] == ["blue"] * 5
        await ups["green"].wait_for_requests(5)
        # The copies have the same method, host and rewritten path.
        copies = {(method, path, headers["host"]) for method, path, headers in ups["green"].seen}
        assert copies == {(m, p, h["host"]) for m, p, h in ups["blue"].seen}
        assert {path for _, path, _ in copies} == {"/v3/models/iris"}
        # A request that previews the mirror is sent to it once, not also as a copy.
        assert await r.ask("/v2/models/iris", x_version="green") == "500"
        await r.ask("/v2/models/iris", x_version="blue")
        await ups["green"].wait_for_requests(7)
        assert (len(ups["blue"].seen), len(ups["green"].seen)) == (6, 7)


async def test_a_mirror_with_a_share_gets_that_part_of_the_requests(tmp_path: Path) -> None:
    ups, both = await versions("blue", "green")
    model = Model("iris", ("edge",), both, {"blue": 10_000}, mirror=Mirror("green", 2_500))
    async with rig(state_of(edge(), model), ups, tmp_path) as r:
        await asyncio.gather(*(r.ask("/v2/models/iris") for _ in range(1000)))
        # 250 are expected; five standard deviations are 68.
        assert 180 < len(ups["green"].seen) < 320


@pytest.mark.parametrize("key", ["header", "cookie"])
async def test_sticky_users_move_to_green_once_and_stay(key: str, tmp_path: Path) -> None:
    ups, both = await versions("blue", "green")
    sticky = Sticky(header="x-user") if key == "header" else Sticky(cookie="user")
    users = [f"user-{i}" for i in range(400)]

    # One gateway for each step, so that one Envoy serves all steps.
    steps = (0, 1_000, 2_500, 5_000, 9_000, 10_000)
    objects: list[Gateway | Model] = []
    for green in steps:
        objects.append(edge(f"at-{green}"))
        split = {"blue": 10_000 - green, "green": green}
        objects.append(Model(f"iris-{green}", (f"at-{green}",), both, split, keys=("iris",), sticky=sticky))
    async with rig(state_of(*objects), ups, tmp_path) as r:
        on_green: set[str] = set()
        for green in steps:

            async def version_of(user: str, green: int = green) -> str:
                headers = {"x_user": user} if key == "header" else {"cookie": f"a=b; user={user}"}
                return await r.ask("/v2/models/iris", f"at-{green}", **headers)

            answers = await asyncio.gather(*(version_of(u) for u in users))
            again = await asyncio.gather(*(version_of(u) for u in users))
            assert answers == again
            now = {u for u, version in zip(users, answers, strict=True) if version == "green"}
            assert on_green <= now, "a user moved back to blue"
            # Five standard deviations of a share among 400 users are 12.5 points at most.
            assert abs(len(now) / len(users) - green / 10_000) < 0.125
            on_green = now
        assert on_green == set(users)


async def test_requests_without_the_sticky_key_are_split_at_random(tmp_path: Path) -> None:
    ups, both = await versions("blue", "green")
    model = Model("iris", ("edge",), both, {"blue": 5_000, "green": 5_000}, sticky=Sticky(header="x-user"))
    async with rig(state_of(edge(), model), ups, tmp_path) as r:
        drawn = Counter(await asyncio.gather(*(r.ask("/v2/models/iris") for _ in range(200))))
        assert set(drawn) == {"blue", "green"}
        assert min(drawn.values()) > 60


async def test_a_request_that_reached_an_upstream_is_retried_only_if_the_model_permits_it(tmp_path: Path) -> None:
    ups, (safe, unsafe) = await versions("safe", "unsafe")
    state = state_of(
        edge(),
        Model("safe", ("edge",), (safe,), {"safe": 10_000}),
        Model("unsafe", ("edge",), (unsafe,), {"unsafe": 10_000}, retries=Retries(unsafe=True)),
    )
    async with rig(state, ups, tmp_path) as r:
        for u in ups.values():
            u.to_drop = 1
        assert await r.ask("/v2/models/safe", method="POST") == "503"
        assert len(ups["safe"].seen) == 1
        # A client can't ask for a retry either.
        ups["safe"].to_drop = 1
        assert await r.ask("/v2/models/safe", x_envoy_retry_on="5xx,reset", x_envoy_max_retries="3") == "503"
        assert len(ups["safe"].seen) == 2
        assert await r.ask("/v2/models/unsafe", method="POST") == "unsafe"
        assert len(ups["unsafe"].seen) == 2


async def test_a_request_whose_connection_fails_is_retried_at_another_endpoint(tmp_path: Path) -> None:
    ups, (v1,) = await versions("v1")
    # With unequal weights Envoy takes turns between the endpoints. With equal ones it draws at random, and would now and then
    # draw the dead endpoint eleven times in a row.
    alive = replace(v1.endpoints[0], weight=3)
    two = replace(v1, endpoints=(Endpoint("127.0.0.1", free_port()), alive))
    async with rig(
        state_of(edge(), Model("iris", ("edge",), (two,), {"v1": 10_000}, retries=Retries(attempts=10))), ups, tmp_path
    ) as r:
        assert {await r.ask("/v2/models/iris", method="POST") for _ in range(20)} == {"v1"}


async def test_a_single_retry_goes_to_another_endpoint(tmp_path: Path) -> None:
    ups, (v1,) = await versions("v1")
    # The dead endpoint has no active requests. So without the rule for retries, Envoy would choose it again half of the time.
    two = replace(v1, endpoints=(Endpoint("127.0.0.1", free_port()), *v1.endpoints))
    model = Model("iris", ("edge",), (two,), {"v1": 10_000}, retries=Retries(attempts=1))
    async with rig(state_of(edge(), model), ups, tmp_path) as r:
        assert [await r.ask("/v2/models/iris", method="POST") for _ in range(50)] == ["v1"] * 50
        stats = await r.envoy.stats("cluster.iris/v1.upstream_rq_retry")
        assert stats["cluster.iris/v1.upstream_rq_retry"] > 0


async def test_the_last_endpoint_is_not_ejected(tmp_path: Path) -> None:
    ups, (v1,) = await versions("v1")
    ups["v1"].status = 503
    watched = replace(v1, outlier_detection=OutlierDetection(consecutive_failures=1), health_check=HealthCheck(path="/ready"))
    ups["v1"].healthy = "/ready"
    async with rig(state_of(edge(), Model("iris", ("edge",), (watched,), {"v1": 10_000})), ups, tmp_path) as r:
        assert [await r.ask("/v2/models/iris") for _ in range(5)] == ["503"] * 5
        stats = await r.envoy.stats("outlier_detection")
        by_name = {name.rpartition(".")[2]: value for name, value in stats.items()}
        assert by_name["ejections_detected_consecutive_gateway_failure"] >= 1
        assert by_name["ejections_enforced_total"] == 0
        assert {h["host"] for _, path, h in ups["v1"].seen if path == "/ready"} == {"iris"}


async def test_a_health_check_may_take_until_its_timeout(tmp_path: Path) -> None:
    ups, (v1,) = await versions("v1")
    ups["v1"].delay = 5
    slow = replace(v1, health_check=HealthCheck(path="/ready", timeout=10))
    async with rig(state_of(edge(), Model("iris", ("edge",), (slow,), {"v1": 10_000})), ups, tmp_path) as r:
        stats = await r.envoy.stats("health_check.(success|failure)")
        assert stats == {"cluster.iris/v1.health_check.success": 1, "cluster.iris/v1.health_check.failure": 0}


async def test_a_model_has_its_own_request_timeout(tmp_path: Path) -> None:
    ups, (quick, slow) = await versions("quick", "slow")
    state = state_of(
        edge(),
        Model("quick", ("edge",), (quick,), {"quick": 10_000}, timeouts=Timeouts(request=0.2)),
        Model("slow", ("edge",), (slow,), {"slow": 10_000}),
    )

    async with rig(state, ups, tmp_path) as r:
        for u in ups.values():
            u.delay = 0.6
        assert await r.ask("/v2/models/quick") == "504"
        assert await r.ask("/v2/models/slow") == "slow"


# ------------------------------------------------------------------------------------------- TLS and gRPC to upstreams


async def test_upstream_tls_checks_the_authority_and_the_server_name(tmp_path: Path) -> None:
    authority = Authority()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.pair("iris.example", "*.wild.example", "127.0.0.1").files(tmp_path, "iris"))
    upstream = Upstream("v1", tls=context)
    endpoint = await upstream.start()
    ca = authority.certificate
    expected = {
        "name": (UpstreamTls("iris.example", ca), "v1"),
        "wildcard": (UpstreamTls("a.wild.example", ca), "v1"),
        "address": (UpstreamTls("127.0.0.1", ca), "v1"),
        "waived": (UpstreamTls(insecure_skip_verify=True), "v1"),
        "another-name": (UpstreamTls("wine.example", ca), "503"),
        "another-address": (UpstreamTls("127.0.0.2", ca), "503"),
        "another-authority": (UpstreamTls("iris.example", another_authority()), "503"),
    }
    models = [Model(n, ("edge",), (Version("v1", (endpoint,), tls=tls),), {"v1": 10_000}) for n, (tls, _) in expected.items()]
    async with rig(state_of(edge(), *models), {"v1": upstream}, tmp_path) as r:
        answers = {n: await r.ask(f"/v2/models/{n}") for n in expected}
        assert answers == {n: answer for n, (_, answer) in expected.items()}


def another_authority() -> str:
    """Return the certificate of an authority that did not sign the test's certificate."""
    tls = read_state("tls").models["iris"].version("own").tls
    assert tls is not None
    return tls.ca_certificates_pem


async def test_a_grpc_model_is_served_and_health_checked(tmp_path: Path) -> None:
    health = HealthServicer()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    checked = HealthCheck(interval=0.1)
    version = Version("v1", (Endpoint("127.0.0.1", port),), Protocol.GRPC, health_check=checked)
    gateway = edge(routing=HeaderRouting("x-model"))
    try:
        async with rig(state_of(gateway, Model("iris", ("edge",), (version,), {"v1": 10_000})), {}, tmp_path) as r:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{r.ports['edge']}") as channel:
                check = health_pb2_grpc.HealthStub(channel).Check
                answer = await check(health_pb2.HealthCheckRequest(service=""), metadata=(("x-model", "iris"),), timeout=10)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await check(health_pb2.HealthCheckRequest(service=""), metadata=(("x-model", "wine"),), timeout=10)
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
                assert str(caught.value.details()).startswith("There is no model 'wine'.")
            stats = await r.envoy.stats("iris/v1.health_check.(success|failure)")
            assert stats["cluster.iris/v1.health_check.success"] >= 1
            assert stats["cluster.iris/v1.health_check.failure"] == 0
    finally:
        await server.stop(0)
