"""Hypothesis strategies for valid nouns. Durations are whole milliseconds, as people write them."""

from __future__ import annotations

import string
from dataclasses import replace

from hypothesis import HealthCheck as Health
from hypothesis import Phase, settings
from hypothesis import strategies as st

from controlplane.domain import (
    FULL_SHARE,
    AccessLog,
    Affinity,
    BodyRouting,
    ConnectionLimits,
    Cors,
    Endpoint,
    ErrorFormat,
    FileSink,
    Gateway,
    GrpcSink,
    HeaderRouting,
    HealthCheck,
    HostRouting,
    Mirror,
    Model,
    NodeSelector,
    OutlierDetection,
    Patch,
    PatchTarget,
    PathRewrite,
    PathRouting,
    Protocol,
    RateLimit,
    RateLimiting,
    RequestHeaders,
    Retries,
    Sticky,
    Timeouts,
    UpstreamTls,
    Version,
)
from controlplane.domain.fallback import change_of_requests
from tests.pki import authority

# Nouns are large, so there are fewer examples. There is no deadline, because the machine may be busy. A failure is reported as
# it was drawn: making a model smaller takes more than two minutes, and then the time limit of the test would hide the failure.
_WITHOUT_SHRINKING = [Phase.explicit, Phase.reuse, Phase.generate, Phase.target]
some = settings(max_examples=40, deadline=None, phases=_WITHOUT_SHRINKING, suppress_health_check=[Health.too_slow])

object_labels = st.sampled_from([{}, {"team": "ml"}, {"a/b": "1", "team": "Ops"}])
labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
ports = st.integers(1, 65535)
headers = st.from_regex(r"x-[a-z]{1,8}", fullmatch=True).filter(lambda h: not h.startswith(("x-envoy-", "x-turnout-")))
texts = st.text(string.ascii_letters + string.digits + "-_ é", max_size=12)


def millis(low: float, high: float) -> st.SearchStrategy[float]:
    """Return a strategy for seconds, in whole milliseconds."""
    return st.integers(round(low * 1000), round(high * 1000)).map(lambda ms: ms / 1000)


path_routings = st.builds(
    PathRouting,
    segment=st.integers(1, 16),
    verbs=st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True), min_size=1, max_size=4, unique=True).map(tuple),
)
body_routings = st.builds(
    BodyRouting,
    st.integers(64 << 10, 1 << 30),
    st.sampled_from(["", "iris", "meta-llama/Llama-3.1-8B-Instruct", "llama3.1:8b"]),
)
routings = st.one_of(path_routings, st.builds(HeaderRouting, headers), st.just(HostRouting()), body_routings)
selectors = st.builds(
    NodeSelector,
    clusters=st.lists(texts, max_size=3).map(tuple),
    ids=st.lists(texts, max_size=3).map(tuple),
    metadata=st.dictionaries(texts, texts, max_size=3),
    regions=st.lists(texts, max_size=3).map(tuple),
    zones=st.lists(texts, max_size=3).map(tuple),
    sub_zones=st.lists(texts, max_size=3).map(tuple),
)
origins = st.sampled_from(["https://app.example.com", "http://*.example.com:8080", "app://localhost"])
cors = st.builds(
    Cors,
    allow_origins=st.lists(origins, min_size=1, unique=True).map(tuple),
    allow_methods=st.sampled_from([(), ("GET", "POST")]),
    allow_headers=st.lists(headers, max_size=3, unique=True).map(tuple),
    expose_headers=st.sampled_from([(), ("grpc-status", "grpc-message")]),
    allow_credentials=st.booleans(),
    max_age=st.sampled_from([None, 0.0, 86_400.0]),
) | st.just(Cors(("*",)))
access_logs = st.sampled_from(
    [AccessLog(), AccessLog(file=FileSink("/var/log/edge.log")), AccessLog(grpc=GrpcSink("logs.svc", 4317, "edge"))]
)
gateways = st.builds(
    Gateway,
    name=labels,
    port=ports,
    address=st.sampled_from(["0.0.0.0", "127.0.0.1", "::", "10.1.2.3"]),
    routing=routings,
    nodes=selectors,
    absent_after=st.sampled_from([None, 1.0, 30.5, 86_400.0]),
    ephemeral=st.booleans(),
    expected_nodes=st.sampled_from([0, 1, 20_000]),
    cors=st.none() | cors,
    access_log=st.none() | access_logs,
    answered_by_header=st.just("") | headers,
    health_path=st.sampled_from(["", "/healthz"]),
    hide_models=st.booleans(),
    rate_limiting=st.sampled_from([None, RateLimiting(), RateLimiting(max_users=7)]),
    error_format=st.sampled_from([None, *ErrorFormat]),
    patches=st.sampled_from([(), (Patch("backlog", PatchTarget.LISTENER, '{"tcp_backlog_size": 7}'),)]),
    labels=object_labels,
)

ips = st.ip_addresses(v=4).map(str)
names = st.from_regex(r"[a-z]{1,8}\.svc", fullmatch=True)


def endpoint_lists(hosts: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[Endpoint, ...]]:
    """Return a strategy for distinct endpoints whose hosts are all IP addresses or all names."""
    places = st.sampled_from(["", "eu", "us"])
    each = st.builds(Endpoint, host=hosts, port=ports, weight=st.integers(1, 10_000), region=places, zone=places)
    return st.lists(each, min_size=1, max_size=4, unique_by=lambda e: (e.host, e.port)).map(tuple)


tls = st.one_of(
    st.builds(UpstreamTls, server_name=names, insecure_skip_verify=st.booleans()),
    st.just(UpstreamTls(insecure_skip_verify=True)),
    st.just(UpstreamTls("a.svc", authority().certificate)),
)
rewrites = st.none() | st.builds(PathRewrite, st.sampled_from(["/", "/v2"]), st.sampled_from(["/", "/models/x"]))
versions = st.builds(
    Version,
    name=labels,
    endpoints=st.one_of(endpoint_lists(ips), endpoint_lists(names)),
    protocol=st.sampled_from(Protocol),
    tls=st.none() | tls,
    health_check=st.none()
    | st.builds(
        HealthCheck,
        path=st.sampled_from(["/", "/healthz"]),
        interval=millis(0.1, 3600),
        timeout=millis(0.01, 60),
        healthy_threshold=st.integers(1, 100),
        unhealthy_threshold=st.integers(1, 100),
    ),
    outlier_detection=st.none()
    | st.builds(
        OutlierDetection,
        consecutive_failures=st.integers(1, 10_000),
        ejection_time=millis(0.1, 3600),
        max_ejection_percent=st.integers(1, 100),
    ),
    limits=st.just(ConnectionLimits())
    | st.builds(ConnectionLimits, st.integers(1, 2**31 - 1), st.integers(1, 9), st.integers(1, 9), st.integers(0, 9)),
    connect_timeout=millis(0.001, 60),
    host=st.just("") | names,
    rewrite=rewrites,
    request_headers=st.none()
    | st.builds(
        RequestHeaders,
        st.dictionaries(headers, st.sampled_from(["a", "50 % of it"]), min_size=1, max_size=2),
        st.sampled_from([(), ("cookie",)]),
    ),
    patches=st.sampled_from([(), (Patch("note", PatchTarget.CLUSTER, '{"alt_stat_name": "x"}'),)]),
)
affinities = st.none() | headers.map(lambda h: Affinity(header=h)) | st.just(Affinity(cookie="chat"))
rate_limits = st.one_of(
    st.builds(RateLimit, st.integers(1, 1_000_000), millis(1, 3600)),
    headers.map(lambda h: RateLimit(5, header=h)),
    st.just(RateLimit(5, client_address=True)),
    st.just(RateLimit(5, cookie="uid")),
)
stickies = st.none() | headers.map(lambda h: Sticky(header=h)) | st.just(Sticky(cookie="uid"))
retries = st.builds(Retries, attempts=st.integers(0, 10), unsafe=st.booleans()) | millis(0, 86_400).map(
    lambda t: Retries(3, unsafe=True, per_try_timeout=t, request_body_buffer_limit=1 << 30)
)
timeouts = st.builds(Timeouts, request=millis(0, 86_400), idle=millis(0, 86_400))


def _fallbacks(version: Version, versions: list[Version]) -> st.SearchStrategy[tuple[str, ...]]:
    """Return a strategy for the fallbacks of one of a model's versions."""
    grpc = version.protocol is Protocol.GRPC
    unchanged = [] if change_of_requests(version) else [v for v in versions if not change_of_requests(v)]
    fitting = [v.name for v in unchanged if v.name != version.name and (v.protocol is Protocol.GRPC) == grpc]
    return st.lists(st.sampled_from(fitting), max_size=2, unique=True).map(tuple) if fitting else st.just(())


def _with_grpc_ports(versions: list[Version]) -> list[Version]:
    """Return versions with gRPC ports, or as they are if one of them can't have any."""
    if any(v.endpoints and (v.protocol is Protocol.GRPC or v.upstream_model) for v in versions):
        return versions
    ports = ((v, tuple(replace(e, grpc_port=e.port % 65_535 + 1) for e in v.endpoints)) for v in versions)
    return [replace(v, endpoints=endpoints) for v, endpoints in ports]


@st.composite
def models(draw: st.DrawFn, gateway_labels: st.SearchStrategy[str] = labels, name: st.SearchStrategy[str] = labels) -> Model:
    """Draw a model whose split covers all its versions."""
    drawn = draw(st.lists(versions, min_size=1, max_size=3, unique_by=lambda v: v.name))
    cuts = sorted(draw(st.lists(st.integers(0, FULL_SHARE), min_size=len(drawn) - 1, max_size=len(drawn) - 1)))
    if draw(st.booleans()):
        drawn = _with_grpc_ports(drawn)
    drawn = [replace(v, fallback=draw(_fallbacks(v, drawn))) for v in drawn]
    fallbacks = {name for v in drawn for name in v.fallback}
    mirrors = [v.name for v in drawn if v.name not in fallbacks]
    shares = [b - a for a, b in zip([0, *cuts], [*cuts, FULL_SHARE], strict=True)]
    return Model(
        name=draw(name),
        gateways=tuple(draw(st.lists(gateway_labels, min_size=1, max_size=2, unique=True))),
        versions=tuple(drawn),
        split={v.name: share for v, share in zip(drawn, shares, strict=True)},
        keys=tuple(draw(st.lists(st.from_regex(r"[A-Za-z0-9._~-]{1,9}", fullmatch=True), max_size=3, unique=True))),
        sticky=draw(stickies),
        preview_header=draw(st.just("") | headers),
        mirror=draw(
            st.none()
            | st.builds(
                Mirror,
                st.sampled_from(mirrors),
                st.integers(1, FULL_SHARE),
                st.integers(1, 2**30),
                st.integers(1, 2**31 - 1),
                millis(0, 86_400),
            )
            if mirrors
            else st.none()
        ),
        timeouts=draw(timeouts),
        retries=draw(retries),
        rewrite=draw(rewrites),
        affinity=draw(affinities),
        rate_limits=tuple(draw(st.lists(rate_limits, max_size=2))),
        labels=draw(object_labels),
    )
