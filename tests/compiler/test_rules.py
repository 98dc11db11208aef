"""Envoy's rules in code. Each finds a break that the constraints in the protos do not find."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2, scoped_route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from controlplane.compiler.constraints import Constraints
from controlplane.compiler.decode import decoded
from controlplane.compiler.rules import RULES
from controlplane.envoy_types import CLUSTER, LISTENER, ORDER, ROUTES, SCOPED_ROUTES, SECRET
from tests.compiler.breaks import BREAKS, base, broken

constraints = Constraints()

# Breaks that the protos' own constraints find, so that no rule in code is needed.
FOUND_IN_PROTOS = {b.name for b in BREAKS if list(constraints.problems(decoded(broken(b))))}


def test_every_compiled_type_has_a_function() -> None:
    assert tuple(sorted(RULES)) == tuple(sorted(ORDER))


def test_a_compiled_resource_breaks_no_rule() -> None:
    for type_url in ORDER:
        for resource in base().resources[type_url].values():
            assert list(RULES[type_url](decoded(resource))) == []


@pytest.mark.parametrize("wrong", [b for b in BREAKS if b.name not in FOUND_IN_PROTOS], ids=lambda b: b.name)
def test_a_break_has_one_problem_at_its_field(wrong: Any) -> None:
    ((path, text),) = RULES[wrong.type_url](decoded(broken(wrong)))
    assert wrong.field.endswith(path)
    assert text


LONG = timedelta(seconds=301)
TOO_LONG = {"direct_response": {"body": {"inline_string": "é" * 2049}}}


def a_cluster(**fields: Any) -> Any:
    return cluster_pb2.Cluster(name="c", **fields)


@pytest.mark.parametrize(
    ("type_url", "message", "problems"),
    [
        (CLUSTER, a_cluster(type="STATIC"), {"load_assignment": "must name endpoints"}),
        (
            CLUSTER,
            a_cluster(type="EDS", eds_cluster_config={}, outlier_detection={"base_ejection_time": LONG}),
            {"outlier_detection.base_ejection_time": "must be at most max_ejection_time"},
        ),
        (
            CLUSTER,
            a_cluster(
                type="EDS",
                eds_cluster_config={},
                outlier_detection={"base_ejection_time": LONG, "max_ejection_time": LONG},
            ),
            {},
        ),
        (
            LISTENER,
            listener_pb2.Listener(address={"socket_address": {"address": "::1"}}, filter_chains=[{}]),
            {"filter_chains[0].filters": "must have at least one item"},
        ),
        (
            LISTENER,
            listener_pb2.Listener(
                address={"socket_address": {"address": "::1"}}, filter_chains=[{"filters": [{"name": "x"}]}]
            ),
            {"filter_chains[0].filters[0].typed_config": "must be set"},
        ),
        (
            SCOPED_ROUTES,
            scoped_route_pb2.ScopedRouteConfiguration(key={"fragments": [{"string_key": "k"}]}),
            {"route_configuration_name": "must be set"},
        ),
        (
            ROUTES,
            route_pb2.RouteConfiguration(
                virtual_hosts=[{"name": "x", "domains": ["a"]}, {"name": "x", "domains": ["B", "b"]}]
            ),
            {
                "virtual_hosts": "the domain 'b' is named 2 times, but may be named only once",
                "virtual_hosts[0].name": "'x' is named 2 times, but may be named only once",
                "virtual_hosts[1].name": "'x' is named 2 times, but may be named only once",
            },
        ),
        (
            ROUTES,
            route_pb2.RouteConfiguration(virtual_hosts=[{"name": "x", "domains": ["a"], "routes": [TOO_LONG]}]),
            {"virtual_hosts[0].routes[0].direct_response.body": "must have at most 4096 bytes"},
        ),
        (SECRET, secret_pb2.Secret(name="x"), {"type": "must be set"}),
    ],
)
def test_problems(type_url: str, message: Any, problems: dict[str, str]) -> None:
    assert dict(RULES[type_url](message)) == problems
