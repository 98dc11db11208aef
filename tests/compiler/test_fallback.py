"""Fallbacks, as compiled: one cluster more for each fallback, and an aggregate that routes name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from envoy.extensions.clusters.aggregate.v3.cluster_pb2 import ClusterConfig
from envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2 import PreviousPrioritiesConfig

from controlplane.compiler.decode import decoded
from controlplane.compiler.fallback import compile_fallbacks
from controlplane.compiler.resources import CompiledObjects
from controlplane.compiler.routes import compile_routes
from controlplane.domain import Affinity, Endpoint, Gateway, HealthCheck, Mirror, Model, Protocol, Retries, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, ENDPOINTS, ROUTES
from controlplane.snapshot import Audience
from tests.compiler.cases import check

HERE = (Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80))
BLUE = Version("blue", HERE, health_check=HealthCheck())
GREEN = Version("green", HERE, fallback=("blue", "old"))
OLD = Version("old", (Endpoint("old.svc", 80),))
IRIS = Model("iris", ("edge",), (OLD, BLUE, GREEN), {"blue": 4_000, "green": 6_000}, preview_header="x-version")


def of_envoys(model: Model) -> dict[tuple[str, str], Any]:
    """Return the messages of a model's resources for Envoys, by type and name."""
    state = State({"edge": Gateway("edge", 80)}, {"iris": model})
    resources = CompiledObjects().model(state, NO_LIVE_ENDPOINTS, model, Audience(("edge",)), 1)
    check(resources)
    return {(r.type_url, r.name): decoded(r) for r in resources}


def retry_policy(**changes: Any) -> Any:
    return decoded(compile_routes(replace(IRIS, **changes))).virtual_hosts[0].retry_policy


def test_an_aggregate_has_the_version_and_then_its_fallbacks() -> None:
    *levels, aggregate = compile_fallbacks(replace(IRIS, affinity=Affinity(header="x-chat")))
    assert [level.name for level in levels] == ["iris/green/fallback/blue", "iris/green/fallback/old"]
    names = ["iris/green", "iris/green/fallback/blue", "iris/green/fallback/old"]
    config = ClusterConfig.FromString(decoded(aggregate).cluster_type.typed_config.value)
    assert (aggregate.name, list(config.clusters)) == ("iris/green/fallback", names)
    assert aggregate.refs == {(CLUSTER, name) for name in names}
    assert decoded(levels[0]).health_checks  # a fallback that is not healthy is passed over
    assert decoded(levels[0]).load_balancing_policy.policies


def test_a_level_gets_all_requests_as_long_as_one_endpoint_is_healthy() -> None:
    compiled = of_envoys(IRIS)
    for name in ("iris/green", "iris/green/fallback/blue"):
        assert compiled[ENDPOINTS, name].policy.overprovisioning_factor.value == 1_000_000
    assert compiled[CLUSTER, "iris/green/fallback/old"].load_assignment.policy.overprovisioning_factor.value == 1_000_000
    assert not compiled[ENDPOINTS, "iris/blue"].HasField("policy")


def test_only_the_weights_name_the_aggregate() -> None:
    mirrored = of_envoys(replace(IRIS, mirror=Mirror("green"), versions=(OLD, BLUE, GREEN)))
    (host,) = mirrored[ROUTES, "iris"].virtual_hosts
    *previews, weighted = host.routes
    assert [c.name for c in weighted.route.weighted_clusters.clusters] == ["iris/green/fallback", "iris/blue"]
    assert [p.route.cluster for p in previews] == ["iris/old", "iris/blue", "iris/green"]
    assert host.request_mirror_policies[0].cluster == "iris/green/mirror"


@pytest.mark.parametrize(
    ("versions", "attempts", "retries", "frequency"),
    [
        ((OLD, BLUE, GREEN), 2, 4, 2),  # two tries at each of green and blue, then one at old
        ((OLD, BLUE, replace(GREEN, fallback=("blue",))), 2, 2, 2),
        ((OLD, BLUE, replace(GREEN, fallback=("blue",))), 0, 2, 2),  # a fallback needs retries
        ((OLD, BLUE, replace(GREEN, endpoints=HERE[:1], fallback=("blue",))), 0, 1, 1),  # no other endpoint to try
        ((OLD, BLUE, replace(GREEN, endpoints=HERE[:1], fallback=("blue",))), 5, 5, 1),
        # Green itself has two levels for a node, its own zone and the others.
        ((OLD, BLUE, replace(GREEN, endpoints=(HERE[0], Endpoint("10.0.0.3", 80, zone="b")), fallback=("blue",))), 0, 2, 1),
    ],
)
def test_a_retry_goes_to_the_next_level(versions: tuple[Version, ...], attempts: int, retries: int, frequency: int) -> None:
    policy = retry_policy(versions=versions, retries=Retries(attempts))
    assert policy.num_retries.value == retries
    config = PreviousPrioritiesConfig.FromString(policy.retry_priority.typed_config.value)
    assert config.update_frequency == frequency
    assert list(policy.retriable_status_codes) == [429, 503]
    assert policy.retry_on.endswith(",retriable-status-codes")


def test_grpc_says_429_and_503_in_its_own_way() -> None:
    blue, green = replace(BLUE, protocol=Protocol.GRPC), Version("green", HERE, Protocol.GRPC, fallback=("blue",))
    assert retry_policy(versions=(blue, green)).retry_on.endswith(",retriable-status-codes,resource-exhausted,unavailable")


def test_without_fallbacks_nothing_changes() -> None:
    policy = retry_policy(versions=(OLD, BLUE, replace(GREEN, fallback=())))
    assert (policy.num_retries.value, policy.HasField("retry_priority"), list(policy.retriable_status_codes)) == (2, False, [])
    assert compile_fallbacks(replace(IRIS, versions=(BLUE,), split={"blue": 10_000})) == []


def test_a_switch_is_the_same_policy_and_below_1_kb() -> None:
    before, after = IRIS, replace(IRIS, split={"green": 10_000})
    assert len(compile_routes(after).body) < 1_000
    policies = [decoded(compile_routes(m)).virtual_hosts[0].retry_policy for m in (before, after)]
    assert policies[0] == policies[1]
