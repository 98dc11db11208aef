"""The nouns: valid by construction, and every error names its field."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controlplane.domain import (
    ConnectionLimits,
    Endpoint,
    Gateway,
    HeaderRouting,
    HealthCheck,
    Mirror,
    Model,
    NodeSelector,
    PathRewrite,
    PathRouting,
    Retries,
    Sticky,
    Timeouts,
    UpstreamTls,
    Version,
)
from controlplane.errors import Code, Error

HERE = (Endpoint("127.0.0.1", 8001),)
BLUE, GREEN, IDLE = Version("blue", HERE), Version("green", HERE), Version("idle")


def model(**changes: object) -> Model:
    fields: dict[str, object] = {
        "name": "iris",
        "gateways": ("edge",),
        "versions": (BLUE, GREEN, IDLE),
        "split": {"blue": 10_000},
    }
    return Model(**(fields | changes))  # type: ignore[arg-type]


BAD: list[tuple[str, Callable[[], object], str]] = [
    ("label with capitals", lambda: model(name="Iris"), "name"),
    ("label with a dot", lambda: Gateway("a.b", 80), "name"),
    ("label too long", lambda: Gateway("a" * 64, 80), "name"),
    ("label with a newline", lambda: Gateway("edge\n", 80), "name"),
    ("no name", lambda: Gateway("", 80), "name"),
    ("port 0", lambda: Gateway("edge", 0), "port"),
    ("port 65536", lambda: Gateway("edge", 65_536), "port"),
    ("address that is a name", lambda: Gateway("edge", 80, "localhost"), "address"),
    ("segment 0", lambda: PathRouting(0), "segment"),
    ("verb with a slash", lambda: PathRouting(verbs=("a/b",)), "verbs[0]"),
    ("verb twice", lambda: PathRouting(verbs=("a", "a")), "verbs[1]"),
    ("header in capitals", lambda: HeaderRouting("X-Model"), "name"),
    ("pseudo header", lambda: HeaderRouting(":path"), "name"),
    ("host as a header", lambda: HeaderRouting("host"), "name"),
    ("our own header", lambda: HeaderRouting("x-turnout-scope"), "name"),
    ("our own header, sticky", lambda: Sticky(header="x-turnout-scope"), "header"),
    ("our own header, preview", lambda: model(preview_header="x-turnout-a"), "preview_header"),
    ("endpoint without host", lambda: Endpoint("", 80), "host"),
    ("endpoint that is neither", lambda: Endpoint("not a host", 80), "host"),
    ("endpoint that is half an IP", lambda: Endpoint("10.0.0", 80), "host"),
    ("endpoint port", lambda: Endpoint("10.0.0.1", 70_000), "port"),
    ("endpoint weight", lambda: Endpoint("10.0.0.1", 80, 0), "weight"),
    ("endpoint twice", lambda: Version("blue", HERE * 2), "endpoints[1]"),
    ("IPs and names mixed", lambda: Version("blue", (*HERE, Endpoint("a.b", 1))), "endpoints[1].host"),
    ("connect timeout", lambda: Version("blue", connect_timeout=0), "connect_timeout"),
    ("TLS without a name", lambda: UpstreamTls(), "server_name"),
    ("CA that is none", lambda: UpstreamTls("a.b", "hello"), "ca_certificates_pem"),
    (
        "CA that can't be read",
        lambda: UpstreamTls("a", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
        "ca_certificates_pem",
    ),
    ("private key as CA", lambda: UpstreamTls("a", "-----BEGIN CERTIFICATE-----\nPRIVATE KEY"), "ca_certificates_pem"),
    ("health path", lambda: HealthCheck("health"), "path"),
    ("health timeout", lambda: HealthCheck(timeout=61), "timeout"),
    ("health interval", lambda: HealthCheck(interval=0), "interval"),
    ("limit 0", lambda: ConnectionLimits(max_requests=0), "max_requests"),
    ("sticky by both", lambda: Sticky("a", "b"), ""),
    ("sticky by nothing", lambda: Sticky(), ""),
    ("mirror share", lambda: Mirror("green", 0), "basis_points"),
    ("negative timeout", lambda: Timeouts(request=-1), "request"),
    ("timeout that is no number", lambda: Timeouts(request=float("nan")), "request"),
    ("too many tries", lambda: Retries(attempts=11), "attempts"),
    ("per-try timeout of unsafe calls", lambda: Retries(per_try_timeout=1), "per_try_timeout"),
    ("rewrite", lambda: PathRewrite("a", "/"), "prefix"),
    ("rewrite with a query", lambda: PathRewrite("/", "/a?b"), "replacement"),
    ("no gateways", lambda: model(gateways=()), "gateways"),
    ("gateway twice", lambda: model(gateways=("edge", "edge")), "gateways[1]"),
    ("no versions", lambda: model(versions=()), "versions"),
    ("version twice", lambda: model(versions=(BLUE, BLUE)), "versions[1]"),
    ("key with a slash", lambda: model(keys=("a/b",)), "keys[0]"),
    ("shares below the whole", lambda: model(split={"blue": 9_999}), "split"),
    ("shares above the whole", lambda: model(split={"blue": 9_999, "green": 2}), "split"),
    ("unknown version", lambda: model(split={"red": 10_000}), "split.red"),
    ("share without endpoints", lambda: model(split={"idle": 10_000}), "split.idle"),
    ("negative share", lambda: model(split={"blue": 10_001, "green": -1}), "split.blue"),
    ("preview header", lambda: model(preview_header="X"), "preview_header"),
    ("mirror to nothing", lambda: model(mirror=Mirror("red")), "mirror.version"),
    ("mirror without endpoints", lambda: model(mirror=Mirror("idle")), "mirror.version"),
]


def test_an_address_is_written_one_way() -> None:
    assert Gateway("edge", 1, "0:0:0:0:0:0:0:1") == Gateway("edge", 1, "::1")


@pytest.mark.parametrize(("build", "field"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_what_is_wrong_is_named(build: Callable[[], object], field: str) -> None:
    with pytest.raises(Error) as caught:
        build()
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.violations[0].field == field
    assert caught.value.violations[0].description


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(Error) as caught:
        model(name="", gateways=(), keys=("/",))
    assert [v.field for v in caught.value.violations] == ["name", "gateways", "keys[0]"]


def test_equal_splits_are_equal_values() -> None:
    a = model(split={"green": 1, "blue": 9_999, "idle": 0})
    b = model(split={"blue": 9_999, "green": 1})
    assert a == b
    assert list(a.split) == ["blue", "green"]


@pytest.mark.parametrize(
    ("a", "b", "together"),
    [
        (NodeSelector(), NodeSelector(clusters=("x",)), True),
        (NodeSelector(clusters=("x",)), NodeSelector(clusters=("y",)), False),
        (NodeSelector(clusters=("x",)), NodeSelector(ids=("1",)), True),
        (NodeSelector(metadata={"a": "1"}), NodeSelector(metadata={"a": "2"}), False),
        (NodeSelector(metadata={"a": "1"}), NodeSelector(metadata={"b": "2"}), True),
        (NodeSelector(regions=("eu",)), NodeSelector(zones=("eu-1",)), True),
        (NodeSelector(regions=("eu",)), NodeSelector(regions=("us", "eu")), True),
        (NodeSelector(regions=("eu",)), NodeSelector(regions=("us",)), False),
        (NodeSelector(zones=("a",)), NodeSelector(zones=("b",)), False),
        (NodeSelector(sub_zones=("a",)), NodeSelector(sub_zones=("b",)), False),
    ],
)
def test_selectors_overlap(a: NodeSelector, b: NodeSelector, together: bool) -> None:
    assert a.overlaps(b) is b.overlaps(a) is together


def test_gateways_share_an_address_only_where_a_node_has_both() -> None:
    edge = Gateway("edge", 80)
    assert edge.shares_address(Gateway("other", 80, "127.0.0.1"))
    assert not edge.shares_address(Gateway("other", 81))
    assert not Gateway("a", 80, "127.0.0.1").shares_address(Gateway("b", 80, "127.0.0.2"))
    assert not Gateway("a", 80, nodes=NodeSelector(clusters=("x",))).shares_address(
        Gateway("b", 80, nodes=NodeSelector(clusters=("y",)))
    )
