"""Affinity to an endpoint, as compiled."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.load_balancing_policies.maglev.v3 import maglev_pb2

from controlplane.compiler.affinity import set_affinity
from controlplane.domain import Affinity


@pytest.mark.parametrize("affinity", [Affinity(header="x-chat"), Affinity(cookie="chat")])
def test_the_load_balancer_hashes_the_identity_of_the_conversation(affinity: Affinity) -> None:
    cluster = cluster_pb2.Cluster(lb_policy=cluster_pb2.Cluster.LEAST_REQUEST)
    set_affinity(cluster, affinity)
    assert cluster.lb_policy == cluster_pb2.Cluster.ROUND_ROBIN  # its default, which Envoy ignores
    (policy,) = cluster.load_balancing_policy.policies
    maglev = maglev_pb2.Maglev.FromString(policy.typed_extension_config.typed_config.value)
    (hashed,) = maglev.consistent_hashing_lb_config.hash_policy
    assert (hashed.header.header_name, hashed.cookie.name) == (affinity.header, affinity.cookie)
    assert not hashed.cookie.HasField("ttl")
