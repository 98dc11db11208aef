"""Snapshots as static bootstraps."""

from __future__ import annotations

import pytest

from controlplane.compiler import Compiler, audiences
from controlplane.compiler.decode import unpack
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.domain import is_ip
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from tests.compiler.cases import CASES, of_envoys, read_state
from tests.compiler.test_bootstrap import parsed
from tests.pki import pair


@pytest.mark.parametrize("case", CASES)
def test_a_static_bootstrap_subscribes_to_nothing(case: str) -> None:
    state = read_state(case)
    for a in of_envoys(audiences(state)):
        message = parsed(static_bootstrap(Compiler().compile(state, NO_LIVE_ENDPOINTS, a, 1)))
        assert not message.HasField("dynamic_resources")
        assert "ads {" not in str(message)
        types = {c.name: c.type for c in message.static_resources.clusters}
        hosts = {
            c.name: [
                e.endpoint.address.socket_address.address for group in c.load_assignment.endpoints for e in group.lb_endpoints
            ]
            for c in message.static_resources.clusters
        }
        by_name = {name for name, of_cluster in hosts.items() if not all(map(is_ip, of_cluster))}
        assert types == {c.name: c.STRICT_DNS if c.name in by_name else c.STATIC for c in message.static_resources.clusters}
        for listener in message.static_resources.listeners:
            manager = unpack(listener.filter_chains[0].filters[0].typed_config)
            assert "ads {" not in str(manager)


def test_keys_are_replaced() -> None:
    state = read_state("secrets")
    for audience in of_envoys(audiences(state)):
        placeholder = (pair().certificate, pair().key)
        bootstrap = static_bootstrap(Compiler().compile(state, NO_LIVE_ENDPOINTS, audience, 1), placeholder)
        certificates = [s.tls_certificate for s in parsed(bootstrap).static_resources.secrets if s.HasField("tls_certificate")]
        assert {(c.certificate_chain.inline_string, c.private_key.inline_string) for c in certificates} <= {placeholder}


def test_scopes_are_found_at_a_gateway_that_has_moved() -> None:
    state = read_state("moved")
    (audience,) = of_envoys(audiences(state))
    bootstrap = parsed(static_bootstrap(Compiler().compile(state, NO_LIVE_ENDPOINTS, audience, 1)))
    for listener, scope in zip(bootstrap.static_resources.listeners, ("0.0.0.0:8080", "lab"), strict=True):
        manager = unpack(listener.filter_chains[0].filters[0].typed_config)
        scopes = manager.scoped_routes.scoped_route_configurations_list.scoped_route_configurations
        assert {s.key.fragments[0].string_key for s in scopes} == {scope}
