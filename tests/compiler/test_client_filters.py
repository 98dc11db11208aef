"""The HTTP filters for clients, in order."""

from __future__ import annotations

from controlplane.compiler.client_filters import client_filters
from controlplane.domain import Cors, Gateway


def test_a_gateway_has_only_the_filters_that_it_uses() -> None:
    assert [name for name, _ in client_filters(Gateway("edge", 80))] == [
        "turnout.websocket_key",
        "turnout.grpc_status",
        "envoy.filters.http.grpc_web",
    ]


def test_the_health_check_comes_first() -> None:
    gateway = Gateway("edge", 80, cors=Cors(("*",)), answered_by_header="x-who", health_path="/healthz")
    names = [name.rpartition(".")[2] for name, _ in client_filters(gateway)]
    assert (names[:2], names[-3:]) == (
        ["health_check", "answered_by"],
        ["websocket_key", "grpc_status", "grpc_web"],
    )
    assert names[2:-3] == ["cors", "cors_refused", "cors_preflight", "cors_answer"]
    health = dict(client_filters(gateway))["envoy.filters.http.health_check"]
    assert not health.pass_through_mode.value
    assert [(h.name, h.string_match.exact) for h in health.headers] == [(":path", "/healthz"), (":method", "")]
    # A request with a body is one to a model, whatever its path.
    assert health.headers[1].string_match.safe_regex.regex == "GET|HEAD"
