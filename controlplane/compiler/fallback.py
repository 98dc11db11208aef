"""Fallbacks: the versions that take over when the chosen version of a request can't answer.

A version with fallbacks has more clusters than its own:

    MODEL/VERSION                     its endpoints, as always
    MODEL/VERSION/fallback/FALLBACK   the endpoints of one fallback, for requests that VERSION was chosen for
    MODEL/VERSION/fallback            an aggregate of these clusters, in this order; routes name it instead of MODEL/VERSION

The aggregate's levels are those of its clusters, one after the other. Envoy sends a request to the first level with a healthy
endpoint. A try that fails, or that is answered 429 or 503, is retried at the next level (`previous_priorities`).

The fallback's endpoints have a second cluster because load reports name the endpoint's cluster, and never the aggregate. With
MODEL/FALLBACK alone, Turnout could not count what FALLBACK took over from VERSION apart from what it was chosen for
(`traffic.py`).

Copies for a mirror and previewed requests go to MODEL/VERSION: a user who previews a version wants its answer only.

Known flaw: the levels have no upstream HTTP filters of their own, because Envoy runs those of the cluster that the route names
(envoyproxy/envoy#29318). So versions that need some can't be combined with fallbacks (`domain/fallback.py`).
"""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.clusters.aggregate.v3 import cluster_pb2 as aggregate_pb2
from envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2 import PreviousPrioritiesConfig

from controlplane.compiler.clusters import circuit_breakers, cluster_name, compile_version, upload_limit
from controlplane.compiler.endpoints import NOWHERE, max_priorities
from controlplane.compiler.functions import NO_FUNCTIONS, Functions
from controlplane.compiler.grpc_ports import grpc_name, names_of
from controlplane.compiler.message import packed, resource
from controlplane.compiler.patches import within_version
from controlplane.compiler.who import set_version
from controlplane.domain import Locality, Model, Protocol, Version
from controlplane.envoy_types import CLUSTER
from controlplane.snapshot import Resource

_FALLBACK = "/fallback"
# Answers after which the next level is tried. Nothing checks that a server that gives one has not acted on the request.
_STATUSES = (429, 503)
# The same in gRPC.
_GRPC_STATUSES = "resource-exhausted,unavailable"


def aggregate_name(model: str, version: str) -> str:
    """Return `MODEL/VERSION/fallback`."""
    return f"{cluster_name(model, version)}{_FALLBACK}"


def fallback_name(model: str, version: str, fallback: str) -> str:
    """Return `MODEL/VERSION/fallback/FALLBACK`."""
    return f"{aggregate_name(model, version)}/{fallback}"


def routed_name(model: str, version: Version) -> str:
    """Return the cluster that routes name for a version."""
    return aggregate_name(model, version.name) if version.fallback else cluster_name(model, version.name)


def compile_fallbacks(model: Model, node: Locality = NOWHERE, functions: Functions = NO_FUNCTIONS) -> list[Resource]:
    """Return the aggregates of a model's versions, and the clusters of their fallbacks, for nodes of a locality."""
    versions = [version for version in model.versions if version.endpoints]
    return [cluster for version in versions for cluster in _of_version(model, version, node, functions)]


def _of_version(model: Model, version: Version, node: Locality, functions: Functions) -> list[Resource]:
    if not version.fallback:
        return []
    names = [fallback_name(model.name, version.name, fallback) for fallback in version.fallback]
    options: dict[str, Any] = {"affinity": model.affinity, "limit": upload_limit(model.timeouts.request)}
    options |= {"to_the_last": True, "node": node, "functions": functions}
    levels = []
    for name, fallback in zip(names, version.fallback, strict=True):
        with within_version(model, fallback):
            level = model.version(fallback)
            levels += [compile_version(n, model.name, level, **options) for n in names_of(name, level)]
    names = [cluster_name(model.name, version.name), *names]
    aggregates = [_aggregate(model.name, version, aggregate_name(model.name, version.name), names)]
    if version.has_grpc_ports:
        aggregates.append(_aggregate(model.name, version, grpc_name(aggregates[0].name), [grpc_name(name) for name in names]))
    return [*levels, *aggregates]


def _aggregate(model: str, version: Version, name: str, levels: list[str]) -> Resource:
    cluster = cluster_pb2.Cluster(
        name=name,
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        # Retries count here, and everything else at the levels.
        circuit_breakers=circuit_breakers(version),
    )
    # The version that was chosen. Access logs and headers show the metadata of this cluster, not of its levels (`who.py`).
    set_version(cluster.metadata, model, version.name)
    cluster.cluster_type.name = "envoy.clusters.aggregate"
    cluster.cluster_type.typed_config.CopyFrom(packed(aggregate_pb2.ClusterConfig(clusters=levels)))
    return resource(CLUSTER, cluster, [(CLUSTER, name) for name in levels])


def retry_at_next_level(policy: Any, model: Model) -> None:
    """Let a retry policy try the next level of a version with fallbacks. Do nothing if no version of the model has any.

    It is the same for every split. So a version without fallbacks has its 429 and 503 retried, too, at another endpoint.
    """
    versions = [v for v in model.versions if v.fallback and v.endpoints]
    if not versions:
        return
    policy.retry_on += ",retriable-status-codes"
    policy.retriable_status_codes.extend(_STATUSES)
    if any(v.protocol is Protocol.GRPC or v.has_grpc_ports for v in versions):
        policy.retry_on += f",{_GRPC_STATUSES}"
    # Try a second endpoint of the same level first, unless it has a single one, or the version itself has several levels.
    tries = 2 if all(len(v.endpoints) > 1 and max_priorities(v) == 1 for v in versions) else 1
    levels = max(max_priorities(v) - 1 + len(v.fallback) for v in versions)
    policy.num_retries.value = max(policy.num_retries.value, tries * levels)
    policy.retry_priority.name = "previous_priorities"
    policy.retry_priority.typed_config.CopyFrom(packed(PreviousPrioritiesConfig(update_frequency=tries)))
