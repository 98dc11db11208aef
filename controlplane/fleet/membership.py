"""The definition of the nodes that count, and of done. The API, the receipts, the log and the metrics all use it.

| a node is | if |
|---|---|
| connected | it has an open stream |
| known | it has ACKed at least one revision, and was neither forgotten nor released since |
| gone | it is known, and not connected |
| released | it is not connected, and its absence has lasted for as long as its gateways allow, or it was never known |

A node *counts* if it is connected or known. A connected node that has ACKed nothing yet counts, too: an Envoy that refuses its
first configuration must not be left out.

A node *holds* a revision if it has ACKed everything of it, except for resources that it refused in an earlier revision and
that have not changed since. Those stay visible as refusals: the node is in the state REFUSING. So a switch of one model is
done on a node that still refuses a cluster of another model.

A revision is *done* if every node that counts holds it, and every gateway has as many of these nodes as it expects. For that
number, nodes of one identity are one node (`identities.py`).

A restart of the control plane forgets what the nodes hold, and remembers the nodes (`RememberedNode`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.domain import Gateway, Locality
from controlplane.domain.gateway import ABSENT_AFTER
from controlplane.fleet.node import Node
from controlplane.snapshot import Client

# The largest number of nodes that are remembered. A further node is served, and is not known: nobody is evicted for it.
MAX_REMEMBERED = 20_000
# The largest size of a remembered node's id, and of its cluster and locality together, in UTF-8. Bytes.
MAX_ID, MAX_PLACE = 512, 1_024

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class RememberedNode:
    """The stored description of a known node. It has nothing of what the node holds."""

    id: str
    cluster: str
    locality: Locality
    client: Client
    first_seen: int  # seconds since the epoch
    last_seen_hour: int  # hours since the epoch
    identity: str = ""  # "" without mutual TLS
    shared_identity: bool = False


@dataclass(frozen=True, slots=True)
class ExpectedNodes:
    """The nodes of a gateway that declares how many it expects."""

    gateway: str  # the label
    expected: int
    counted: int


def can_be_remembered(node: Node) -> bool:
    """Return True if a node's description is small enough to be stored."""
    place = (node.cluster, node.locality.region, node.locality.zone, node.locality.sub_zone)
    return 0 < len(node.id.encode()) <= MAX_ID and sum(len(text.encode()) for text in place) <= MAX_PLACE


def remembered(node: Node, now: float) -> RememberedNode:
    """Return the description of a node to store at `now`. A node with an open stream is seen, also if it sends nothing."""
    last_seen = now if node.gone_since is None else node.gone_since
    return RememberedNode(
        node.id,
        node.cluster,
        node.locality,
        node.audience.client,
        int(node.first_seen),
        int(last_seen // _HOUR),
        node.identity,
        node.shared_identity,
    )


def absence_at_start(last_seen_hour: int, newest_hour: int) -> float:
    """Return the seconds for which a remembered node was away when the control plane started.

    `newest_hour` is the newest hour of all remembered nodes: the hour in which the control plane last ran. The time after it
    does not count. Hours are whole, so the result may be up to two hours too small, and is never too large.
    """
    return max(0, newest_hour - last_seen_hour - 1) * _HOUR


def selecting(node: Node, gateways: Mapping[str, Gateway]) -> tuple[str, ...]:
    """Return the labels of the gateways that select a node, sorted.

    The metadata of a node that did not connect since the start is not known. Gateways that could select it are returned, too.
    """
    metadata = None if node.restored else node.metadata
    return tuple(sorted(g.name for g in gateways.values() if g.nodes.matches(node.cluster, node.id, metadata, node.locality)))


def absence_limit(labels: tuple[str, ...], gateways: Mapping[str, Gateway]) -> float:
    """Return the seconds after which a node of these gateways is released: the longest time of any of them."""
    return max((gateways[label].absence_limit for label in labels if label in gateways), default=ABSENT_AFTER)
