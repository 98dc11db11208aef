"""Descriptions of changes: a line for each field that differs, and never a private key."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from controlplane.domain import (
    BodyRouting,
    Credential,
    Endpoint,
    Gateway,
    HeaderRouting,
    HealthCheck,
    HostRouting,
    Model,
    NodeSelector,
    RateLimit,
    RequestHeaders,
    Sticky,
    Timeouts,
    UpstreamTls,
    Version,
)
from controlplane.domain.describe import MAX_ENDPOINT_LINES, lines
from tests.nouns import gateways, models, some
from tests.pki import authority

EDGE = Gateway("edge", 8080)
BLUE, GREEN = (Version(n, (Endpoint(f"10.0.0.{i}", 80),)) for i, n in enumerate(("blue", "green"), 1))
IRIS = Model("iris", ("edge",), (BLUE, GREEN), {"blue": 10_000})
PEM = authority().certificate


def changed(**fields: object) -> list[str]:
    return lines(IRIS, replace(IRIS, **fields))  # type: ignore[arg-type]


def of_blue(**fields: object) -> list[str]:
    return changed(versions=(replace(BLUE, **fields), GREEN))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        (changed(split={"green": 10_000}), ["split: blue 10000 -> green 10000"]),
        (changed(split={"blue": 9_000, "green": 1_000}), ["split: blue 10000 -> blue 9000, green 1000"]),
        (changed(keys=("a", "b")), ["keys: none -> a, b"]),
        (changed(sticky=Sticky(header="x-user")), ["sticky: none -> set", "sticky.header: none -> x-user"]),
        (changed(timeouts=Timeouts(idle=60.0)), ["timeouts.idle: 300 s -> 60 s"]),
        (changed(versions=(BLUE,)), ["versions: blue, green -> blue"]),
        (changed(versions=(GREEN, BLUE)), ["versions: blue, green -> green, blue"]),
        (of_blue(connect_timeout=0.25), ["versions.blue.connect_timeout: 5 s -> 0.25 s"]),
        (of_blue(health_check=HealthCheck()), ["versions.blue.health_check: none -> set"]),
        (
            of_blue(endpoints=(Endpoint("10.0.0.1", 80, 7), Endpoint("10.0.0.9", 81))),
            ["versions.blue.endpoints: + 10.0.0.9:81", "versions.blue.endpoints: 10.0.0.1:80 weight 1 -> 7"],
        ),
        (
            of_blue(endpoints=(Endpoint("::1", 80, 2),)),
            ["versions.blue.endpoints: - 10.0.0.1:80", "versions.blue.endpoints: + [::1]:80 weight 2"],
        ),
        (
            lines(EDGE, replace(EDGE, routing=HostRouting())),
            ["routing: path segment 3, verbs predict, classify, regress, explain -> host"],
        ),
        (lines(EDGE, replace(EDGE, nodes=NodeSelector(metadata={"a": "b c"}))), ["nodes.metadata: none -> a 'b c'"]),
        (lines(EDGE, replace(EDGE, nodes=NodeSelector(ids=("",)))), ["nodes.ids: none -> ''"]),
        (
            lines(None, replace(EDGE, routing=BodyRouting(1 << 20, "iris"))),
            ["port: 8080", "routing: body up to 1,048,576 bytes, default model iris"],
        ),
        (
            lines(IRIS, replace(IRIS, rate_limits=(RateLimit(5, 10, header="x-user"), RateLimit(9)))),
            ["rate_limits: none -> 5 in 10 s by header x-user, 9 in 1 s"],
        ),
        (lines(None, replace(EDGE, routing=HeaderRouting("x-m"))), ["port: 8080", "routing: header x-m"]),
        (
            lines(None, IRIS),
            [
                "gateways: edge",
                "versions: blue, green",
                "split: blue 10000",
                "versions.blue.endpoints: + 10.0.0.1:80",
                "versions.green.endpoints: + 10.0.0.2:80",
            ],
        ),
        (lines(IRIS, None), []),
        (lines(IRIS, IRIS), []),
    ],
)
def test_each_changed_field_has_a_line(described: list[str], expected: list[str]) -> None:
    assert described == expected


def test_certificates_are_described_by_their_hash() -> None:
    (_, line) = (s for s in of_blue(tls=UpstreamTls("a.svc", PEM)) if "pem" in s or "tls: " in s)
    assert line.startswith("versions.blue.tls.ca_certificates_pem: none -> PEM with sha256 ")
    assert PEM.splitlines()[1] not in line


def test_a_change_of_the_endpoints_order_has_a_line() -> None:
    two = replace(BLUE, endpoints=(Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)))
    turned = replace(two, endpoints=two.endpoints[::-1])
    assert lines(replace(IRIS, versions=(two, GREEN)), replace(IRIS, versions=(turned, GREEN))) == [
        "versions.blue.endpoints: in another order"
    ]


def test_each_changed_field_of_an_endpoint_has_a_line() -> None:
    (blue,) = BLUE.endpoints
    assert of_blue(endpoints=(replace(blue, weight=2, zone="a"),)) == [
        "versions.blue.endpoints: 10.0.0.1:80 weight 1 -> 2",
        "versions.blue.endpoints: 10.0.0.1:80 zone none -> a",
    ]
    other = (replace(blue, port=81, grpc_port=90),)
    both = lines(IRIS, replace(IRIS, versions=(replace(BLUE, endpoints=other), replace(GREEN, endpoints=other))))
    assert both[1] == "versions.blue.endpoints: + 10.0.0.1:81 gRPC port 90"


def test_further_endpoints_are_only_counted() -> None:
    many = of_blue(endpoints=tuple(Endpoint("10.0.0.1", 80 + i) for i in range(100)))
    assert len(many) == MAX_ENDPOINT_LINES + 1
    assert many[-1] == f"versions.blue.endpoints: and {99 - MAX_ENDPOINT_LINES} more"


@some
@given(models(), models())
def test_every_difference_between_models_is_described(a: Model, b: Model) -> None:
    b = replace(b, name=a.name)
    assert bool(lines(a, b)) == (a != b)
    assert lines(a, a) == []
    assert lines(None, a)


@some
@given(gateways, gateways)
def test_every_difference_between_gateways_is_described(a: Gateway, b: Gateway) -> None:
    b = replace(b, name=a.name)
    assert bool(lines(a, b)) == (a != b)


def test_changes_of_requests_are_described() -> None:
    here = (Endpoint("10.0.0.1", 80),)
    headers = RequestHeaders({"x-a": "5 %"}, ("cookie",))
    blue = Version("blue", here, host="a.b", request_headers=headers, credential=Credential("key"), upstream_model="llama")
    old = Model("iris", ("edge",), (blue,), {"blue": 10_000})
    new = replace(old, versions=(replace(blue, credential=Credential("key", scheme="")),))
    assert lines(old, new) == ["versions.blue.credential.scheme: Bearer -> none"]
    created = lines(None, old)
    assert {
        "versions.blue.host: a.b",
        "versions.blue.request_headers.set: x-a '5 %'",
        "versions.blue.upstream_model: llama",
    } <= {*created}
