"""Gateways: valid by construction, and every error names its field."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controlplane.domain import (
    BodyRouting,
    Gateway,
    GatewayTls,
    HeaderRouting,
    Locality,
    NodeSelector,
    PathRouting,
)
from controlplane.domain.references import Reference
from controlplane.errors import Code, Error

BAD: list[tuple[str, Callable[[], object], str]] = [
    ("label with a dot", lambda: Gateway("a.b", 80), "name"),
    ("label too long", lambda: Gateway("a" * 64, 80), "name"),
    ("label with a newline", lambda: Gateway("edge\n", 80), "name"),
    ("no name", lambda: Gateway("", 80), "name"),
    ("port 0", lambda: Gateway("edge", 0), "port"),
    ("port 65536", lambda: Gateway("edge", 65_536), "port"),
    ("scope with a slash", lambda: Gateway("edge", 80, scope_id="a/b"), "scope_id"),
    ("address that is a name", lambda: Gateway("edge", 80, "localhost"), "address"),
    ("segment 0", lambda: PathRouting(0), "segment"),
    ("verb with a slash", lambda: PathRouting(verbs=("a/b",)), "verbs[0]"),
    ("verb twice", lambda: PathRouting(verbs=("a", "a")), "verbs[1]"),
    ("a body that is too small", lambda: BodyRouting(65_535), "max_body_bytes"),
    ("a body that is too large", lambda: BodyRouting((1 << 30) + 1), "max_body_bytes"),
    ("a default model with a space", lambda: BodyRouting(default_model="my iris"), "default_model"),
    ("a default model of two lines", lambda: BodyRouting(default_model="iris\n"), "default_model"),
    ("header in capitals", lambda: HeaderRouting("X-Model"), "name"),
    ("pseudo header", lambda: HeaderRouting(":path"), "name"),
    ("host as a header", lambda: HeaderRouting("host"), "name"),
    ("our own header", lambda: HeaderRouting("x-turnout-scope"), "name"),
]


@pytest.mark.parametrize(("build", "field"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_an_error_names_its_field(build: Callable[[], object], field: str) -> None:
    with pytest.raises(Error) as caught:
        build()
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.violations[0].field == field
    assert caught.value.violations[0].description


def test_an_address_is_normalised() -> None:
    assert Gateway("edge", 1, "0:0:0:0:0:0:0:1") == Gateway("edge", 1, "::1")
    assert Gateway("edge", 1, "0:0:0:0:0:0:0:1").host_port == "[::1]:1"


@pytest.mark.parametrize(
    ("metadata", "matches"), [({"role": "edge"}, True), ({"role": "core"}, False), ({}, False), (None, True)]
)
def test_unknown_metadata_of_a_node_matches(metadata: dict[str, object] | None, matches: bool) -> None:
    assert NodeSelector(metadata={"role": "edge"}).matches("c", "edge-1", metadata) is matches


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
def test_selectors_overlap_if_both_can_select_one_node(a: NodeSelector, b: NodeSelector, together: bool) -> None:
    assert a.overlaps(b) is b.overlaps(a) is together


def test_gateways_share_an_address_only_if_one_node_can_have_both() -> None:
    edge = Gateway("edge", 80)
    assert edge.shares_address(Gateway("other", 80, "127.0.0.1"))
    assert not edge.shares_address(Gateway("other", 81))
    assert not Gateway("a", 80, "127.0.0.1").shares_address(Gateway("b", 80, "127.0.0.2"))
    assert not Gateway("a", 80, nodes=NodeSelector(clusters=("x",))).shares_address(
        Gateway("b", 80, nodes=NodeSelector(clusters=("y",)))
    )


def test_a_gateway_refers_to_its_secrets() -> None:
    assert Gateway("edge", 80).references == ()
    tls = Gateway("edge", 443, tls=GatewayTls("front"))
    assert tls.references == (Reference("tls.certificate", "secrets", "front", "tls_certificate"),)
    mutual = Gateway("edge", 443, tls=GatewayTls("front", "authorities"))
    assert mutual.references[1] == Reference("tls.client_ca", "secrets", "authorities", "ca_certificates")


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        (NodeSelector(), True),
        (NodeSelector(clusters=("x", "y")), True),
        (NodeSelector(clusters=("y",)), False),
        (NodeSelector(ids=("edge-1",), metadata={"tier": "front"}), True),
        (NodeSelector(metadata={"tier": "back"}), False),
        (NodeSelector(regions=("eu",), zones=("eu-1",), sub_zones=("a",)), True),
        (NodeSelector(regions=("us",)), False),
        (NodeSelector(zones=("eu-2",)), False),
        (NodeSelector(sub_zones=("b",)), False),
    ],
)
def test_a_selector_matches_if_all_its_fields_match(selector: NodeSelector, selected: bool) -> None:
    assert selector.matches("x", "edge-1", {"tier": "front"}, Locality("eu", "eu-1", "a")) is selected


def test_the_time_until_a_node_is_released_has_a_default() -> None:
    assert Gateway("edge", 80).absence_limit == 24 * 3600
    assert Gateway("edge", 80, ephemeral=True).absence_limit == 300
    assert Gateway("edge", 80, ephemeral=True, absent_after=7.5).absence_limit == 7.5


@pytest.mark.parametrize(
    ("field", "value"),
    [("absent_after", 0.5), ("absent_after", 367 * 24 * 3600.0), ("expected_nodes", -1), ("expected_nodes", 20_001)],
)
def test_the_nodes_of_a_gateway_have_bounds(field: str, value: float) -> None:
    with pytest.raises(Error, match=f"{field}: .* is out of range"):
        Gateway("edge", 80, **{field: value})  # type: ignore[arg-type]


def test_what_an_envoy_sets_and_answers_itself_is_checked() -> None:
    for field, value in (("answered_by_header", "X-Who"), ("answered_by_header", "x-envoy-who"), ("health_path", "healthz")):
        with pytest.raises(Error, match=f"{field}: "):
            Gateway("edge", 80, **{field: value})  # type: ignore[arg-type]
    for header in ("content-type", "grpc-status", "set-cookie", "access-control-allow-origin", "server", "x-request-id"):
        with pytest.raises(Error, match=f"answered_by_header: '{header}' has a meaning in responses already"):
            Gateway("edge", 80, answered_by_header=header)
    assert Gateway("edge", 80, answered_by_header="x-who", health_path="/healthz").health_path == "/healthz"
