"""Random desired state, valid by construction."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from controlplane.domain import (
    FULL_SHARE,
    AccessLog,
    Affinity,
    BodyRouting,
    ConnectionLimits,
    Cors,
    Endpoint,
    Gateway,
    GrpcSink,
    HeaderRouting,
    HealthCheck,
    HostRouting,
    Mirror,
    Model,
    OutlierDetection,
    PathRewrite,
    PathRouting,
    Protocol,
    RateLimit,
    RateLimiting,
    Retries,
    Sticky,
    Timeouts,
    UpstreamTls,
    Version,
)
from controlplane.domain.state import State

GATEWAYS = ("g1", "g2", "g3")
MODELS = ("iris", "wine", "digits", "cancer")
VERSIONS = ("v1", "v2", "v3", "v4")

seconds = st.floats(0.001, 60, allow_nan=False).map(lambda s: round(s, 4))
paths = st.text(st.sampled_from("/abz09.-_~!$&'()*+,;=:@[]{}|^\\%\"<>"), max_size=30).map(lambda s: "/" + s.replace('"', ""))
routings = st.one_of(
    st.builds(PathRouting, st.integers(1, 16), st.sampled_from([(), ("predict",), ("predict", "x_Y-1")])),
    st.just(HeaderRouting("x-model")),
    st.just(HostRouting()),
    st.builds(BodyRouting, default_model=st.sampled_from(["", "iris", "llama3.1:8b"])),
)
endpoints = st.one_of(
    st.lists(st.ip_addresses().map(str), unique=True, max_size=4),
    st.lists(st.sampled_from(["a.example", "b.example.", "localhost"]), unique=True, max_size=3),
).flatmap(
    lambda hosts: st.tuples(
        *(st.builds(Endpoint, st.just(h), st.integers(1, 65535), st.integers(1, FULL_SHARE)) for h in hosts)
    )
)
tls = st.one_of(
    st.builds(UpstreamTls, st.sampled_from(["iris.example", "10.0.0.1"])), st.just(UpstreamTls(insecure_skip_verify=True))
)
health_checks = st.builds(HealthCheck, paths, seconds.map(lambda s: max(s, 0.1)), seconds.map(lambda s: max(s, 0.01)))
outliers = st.builds(OutlierDetection, st.integers(1, FULL_SHARE), st.floats(0.1, 3600), st.integers(1, 100))
limits = st.builds(ConnectionLimits, *[st.integers(1, 2**31 - 1)] * 4)
retries = st.one_of(
    st.builds(Retries, st.integers(0, 10)),
    st.builds(Retries, st.integers(0, 10), st.just(True), st.floats(0, 100)),
)
affinities = st.one_of(st.just(Affinity(header="x-chat")), st.just(Affinity(cookie="chat")))
stickies = st.one_of(st.just(Sticky(header="x-user")), st.just(Sticky(cookie="User")))


def versions(name: str) -> st.SearchStrategy[Version]:
    return st.builds(
        Version,
        st.just(name),
        endpoints,
        st.sampled_from(Protocol),
        st.none() | tls,
        st.none() | health_checks,
        st.none() | outliers,
        limits,
        seconds,
    )


@st.composite
def splits(draw: st.DrawFn, names: list[str]) -> dict[str, int]:
    """Shares of the names, some of them 0, that sum to the whole."""
    cuts = sorted(draw(st.lists(st.integers(0, FULL_SHARE), min_size=len(names) - 1, max_size=len(names) - 1)))
    return {n: b - a for n, a, b in zip(names, [0, *cuts], [*cuts, FULL_SHARE], strict=True)}


@st.composite
def models(draw: st.DrawFn, name: str) -> Model:
    drawn = draw(
        st.lists(st.sampled_from(VERSIONS), min_size=1, unique=True).flatmap(lambda ns: st.tuples(*map(versions, ns)))
    )
    if not any(v.endpoints for v in drawn):
        drawn = (replace(drawn[0], endpoints=(Endpoint("10.0.0.1", 80),)), *drawn[1:])
    with_endpoints = [v.name for v in drawn if v.endpoints]
    return Model(
        name,
        tuple(draw(st.lists(st.sampled_from(GATEWAYS), min_size=1, unique=True))),
        drawn,
        draw(splits(with_endpoints)),
        draw(st.sampled_from([(), (f"{name}.2", name)])),
        draw(st.none() | stickies),
        draw(st.sampled_from(["", "x-version"])),
        draw(st.none() | st.builds(Mirror, st.sampled_from(with_endpoints), st.integers(1, FULL_SHARE))),
        draw(st.builds(Timeouts, st.floats(0, 86_400), st.floats(0, 86_400))),
        draw(retries),
        draw(st.none() | st.builds(PathRewrite, paths, paths)),
        draw(st.none() | affinities),
    )


CORS = (None, Cors(("*",)), Cors(("https://*.a.example:1",), ("GET",), ("x-a",), ("x-b",), True, 5.0))
LOGS = (None, AccessLog(), AccessLog(grpc=GrpcSink("10.0.0.9", 1)), AccessLog(grpc=GrpcSink("logs.example", 1, "mine")))

LIMITING = (None, RateLimiting(), RateLimiting(divide_by_expected_nodes=True, max_users=7))
LIMITS = st.lists(
    st.builds(RateLimit, st.integers(1, 1_000_000), st.floats(1, 3600))
    | st.sampled_from(
        [RateLimit(1, header="x-user"), RateLimit(2, header="x-key"), RateLimit(3, cookie="Uid"), RateLimit(4, 9.5, "", True)]
    ),
    max_size=3,
)


@st.composite
def gateways(draw: st.DrawFn, name: str) -> Gateway:
    return Gateway(
        name,
        8000 + GATEWAYS.index(name),
        draw(st.sampled_from(["0.0.0.0", "::", "10.0.0.1"])),
        draw(routings),
        cors=draw(st.sampled_from(CORS)),
        access_log=draw(st.sampled_from(LOGS)),
        answered_by_header=draw(st.sampled_from(["", "x-who"])),
        health_path=draw(st.sampled_from(["", "/healthz"])),
        hide_models=draw(st.booleans()),
        expected_nodes=3,
        rate_limiting=draw(st.sampled_from(LIMITING)),
    )


@st.composite
def states(draw: st.DrawFn) -> State:
    """All gateways, and some of the models."""
    names = draw(st.lists(st.sampled_from(MODELS), unique=True))
    at = {n: draw(gateways(n)) for n in GATEWAYS}
    drawn = [draw(models(n)) for n in names]
    # Only models whose gateways all apply limits can have some.
    limited = [
        replace(m, rate_limits=tuple(draw(LIMITS))) if all(at[g].rate_limiting for g in m.gateways) else m for m in drawn
    ]
    return State(at, {m.name: m for m in limited})
