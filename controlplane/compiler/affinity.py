"""Affinity to an endpoint: the cluster of a model with affinity picks the endpoint by a hash of the conversation's identity.

The hash policy is in the cluster's load balancer and not in the route. There it overrides the policy of the route, which
chooses the version by the user. So the two choices don't depend on each other, and a switch does not change which endpoint of
a version a conversation uses.

The hash table is Maglev's and not a ring: when one of four endpoints is removed, Envoy's ring is built with more entries for
each of the others, and 36 % of the conversations move instead of 25 %.
"""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.load_balancing_policies.common.v3 import common_pb2
from envoy.extensions.load_balancing_policies.maglev.v3 import maglev_pb2

from controlplane.compiler.message import packed
from controlplane.domain import Affinity


def set_affinity(cluster: Any, affinity: Affinity) -> None:
    """Let a cluster choose endpoints by the identity of a conversation. Requests without one go to any endpoint."""
    policy = route_components_pb2.RouteAction.HashPolicy()
    if affinity.header:
        policy.header.header_name = affinity.header
    else:
        # Without a TTL Envoy sets no cookie.
        policy.cookie.name = affinity.cookie
    hashing = common_pb2.ConsistentHashingLbConfig(hash_policy=[policy])
    maglev = maglev_pb2.Maglev(consistent_hashing_lb_config=hashing)
    # `load_balancing_policy` overrides `lb_policy`.
    cluster.ClearField("lb_policy")
    extension = cluster.load_balancing_policy.policies.add().typed_extension_config
    extension.name = "envoy.load_balancing_policies.maglev"
    extension.typed_config.CopyFrom(packed(maglev))
