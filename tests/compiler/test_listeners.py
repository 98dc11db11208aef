"""Listeners: named after their address, and how they find a request's scope."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from controlplane.compiler import Compiler
from controlplane.compiler.decode import decoded, owner, unpack
from controlplane.compiler.listeners import SCOPE_HEADER, compile_listener
from controlplane.domain import BodyRouting, Gateway, GatewayTls, HeaderRouting, HostRouting, PathRouting, Routing, TlsVersion
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import LISTENER, SCOPED_ROUTES, SECRET
from controlplane.snapshot import Audience
from tests.compiler.cases import check
from tests.compiler.strategies import gateways
from tests.compiler.values import a_model, shared_types
from tests.nouns import some


def test_gateways_that_swap_ports_keep_the_listeners_and_scopes() -> None:
    compiler, audience = Compiler(), Audience(("a", "b"))
    model = a_model("iris", gateways=("a", "b"))
    before = State({"a": Gateway("a", 1), "b": Gateway("b", 2)}, {"iris": model})
    # The writer keeps their scopes.
    moved = {"a": Gateway("a", 2, scope_id="0.0.0.0:1"), "b": Gateway("b", 1, scope_id="0.0.0.0:2")}
    after = State(moved, {"iris": model})
    first = compiler.compile(before, NO_LIVE_ENDPOINTS, audience, 1)
    second = compiler.compile(after, NO_LIVE_ENDPOINTS, audience, 2, first)
    assert set(first.resources[LISTENER]) == set(second.resources[LISTENER]) == {"0.0.0.0:1", "0.0.0.0:2"}
    assert {n: owner(r) for n, r in second.resources[LISTENER].items()} == {
        "0.0.0.0:1": "gateways/b",
        "0.0.0.0:2": "gateways/a",
    }
    assert SCOPED_ROUTES in shared_types(first, second)


def manager(gateway: Gateway) -> Any:
    resource = compile_listener(gateway)
    check([resource])
    return unpack(decoded(resource).filter_chains[0].filters[0].typed_config)


@pytest.mark.parametrize(
    ("address", "name"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("fe80::1%eth0", "[fe80::1%eth0]:80")]
)
def test_a_listener_has_the_name_of_its_address(address: str, name: str) -> None:
    assert compile_listener(Gateway("edge", 80, address)).name == name


def test_a_body_gateway_keeps_bodies_up_to_its_limit() -> None:
    gateway = Gateway("edge", 80, routing=BodyRouting(32 << 20))
    # It reads no more at once, or a fast client's upload would be in memory before any limit is looked at.
    assert decoded(compile_listener(gateway)).per_connection_buffer_limit_bytes.value == 1 << 20
    assert manager(gateway).http_filters[0].name == "turnout.body"
    # Over HTTP/2 the stream's window is a limit, too.
    assert manager(gateway).http2_protocol_options.initial_stream_window_size.value == 32 << 20
    assert [f.name for f in manager(gateway).http_filters][-2:] == ["turnout.model", "envoy.filters.http.router"]


@pytest.mark.parametrize(
    ("routing", "header", "fragments"),
    [
        (PathRouting(), "0.0.0.0:80%PATH(NQ:PATH)%///", [(SCOPE_HEADER, 0), (SCOPE_HEADER, 3)]),
        (PathRouting(1), "0.0.0.0:80%PATH(NQ:PATH)%/", [(SCOPE_HEADER, 0), (SCOPE_HEADER, 1)]),
        (HeaderRouting("x-model"), "0.0.0.0:80", [(SCOPE_HEADER, 0), ("x-model", 0)]),
        (HostRouting(), "0.0.0.0:80", [(SCOPE_HEADER, 0), (":authority", 0)]),
        (BodyRouting(), "0.0.0.0:80|*", [(SCOPE_HEADER, 0), (SCOPE_HEADER, 1)]),
    ],
)
def test_a_scope_key_is_the_address_and_the_models_key(
    routing: Routing, header: str, fragments: list[tuple[str, int]]
) -> None:
    message = manager(Gateway("edge", 80, routing=routing))
    *others, mutation = unpack(message.early_header_mutation_extensions[0].typed_config).mutations
    assert (mutation.append.header.key, mutation.append.header.value) == (SCOPE_HEADER, header)
    assert mutation.append.append_action == mutation.append.OVERWRITE_IF_EXISTS_OR_ADD
    # A request without the header that names its model gets an empty one.
    assert [(o.append.header.key, o.append.header.value) for o in others] == (
        [(routing.name, "")] if isinstance(routing, HeaderRouting) else []
    )
    extractors = [f.header_value_extractor for f in message.scoped_routes.scope_key_builder.fragments]
    assert [(e.name, e.index) for e in extractors] == fragments


def test_the_zone_of_an_ipv6_address_is_escaped_in_the_header_value() -> None:
    *_, mutation = unpack(
        manager(Gateway("edge", 80, "fe80::1%eth0", HeaderRouting("x-model"))).early_header_mutation_extensions[0].typed_config
    ).mutations
    assert mutation.append.header.value == "[fe80::1%%eth0]:80"


def test_client_headers_are_not_trusted_and_paths_are_normalised() -> None:
    message = manager(Gateway("edge", 80))
    assert message.use_remote_address.value
    assert message.normalize_path.value
    assert not message.HasField("internal_address_config")
    assert message.http_filters[-1].typed_config.type_url.endswith(".Router")


def test_tls_names_its_secrets() -> None:
    resource = compile_listener(Gateway("edge", 443, tls=GatewayTls("edge", "clients", TlsVersion.TLS_1_3)))
    assert resource.refs == {(SECRET, "edge"), (SECRET, "clients"), (SCOPED_ROUTES, "0.0.0.0:443")}
    (chain,) = decoded(resource).filter_chains
    context = unpack(chain.transport_socket.typed_config)
    assert context.require_client_certificate.value
    assert list(context.common_tls_context.alpn_protocols) == ["h2", "http/1.1"]
    parameters = context.common_tls_context.tls_params
    assert parameters.tls_minimum_protocol_version == parameters.TLSv1_3
    without = decoded(compile_listener(Gateway("edge", 443, tls=GatewayTls("edge")))).filter_chains[0]
    assert not unpack(without.transport_socket.typed_config).HasField("require_client_certificate")


@some
@given(gateways("g1"))
def test_envoy_accepts_every_listener(gateway: Gateway) -> None:
    resource = compile_listener(gateway)
    check([resource])
    assert owner(resource) == "gateways/g1"
