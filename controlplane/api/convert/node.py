"""Conversion of nodes, and of the fleet's counts, to messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

from controlplane.api.convert.names import timestamp
from controlplane.domain import Gateway
from controlplane.domain.collections import resource_name
from controlplane.envoy_types import short_name
from controlplane.errors import invalid
from controlplane.fleet import Fleet, Node, NodeState, Refusal
from controlplane.fleet.held_back import lost_in_words
from controlplane.generated.turnout.v1 import node_pb2, node_service_pb2
from controlplane.reconciler.blocks import Block

STATES = {
    NodeState.SYNCED: node_pb2.NODE_STATE_SYNCED,
    NodeState.BEHIND: node_pb2.NODE_STATE_BEHIND,
    NodeState.REFUSING: node_pb2.NODE_STATE_REFUSING,
    NodeState.GONE: node_pb2.NODE_STATE_GONE,
    NodeState.RELEASED: node_pb2.NODE_STATE_RELEASED,
}


def node_name(node_id: str) -> str:
    """Return the resource name of a node: its id, in which `/` and `%` are percent-encoded."""
    return "nodes/" + node_id.replace("%", "%25").replace("/", "%2F")


def node_id_of(name: str) -> str:
    """Return the id in the resource name of a node. Errors: INVALID_ARGUMENT."""
    collection, _, encoded = name.partition("/")
    if collection != "nodes" or "/" in encoded:
        raise invalid("name", f"'{name[:80]}' is not the name of a node, like nodes/edge-1")
    return unquote(encoded)


def summary_of(fleet: Fleet) -> node_service_pb2.FleetSummary:
    """Return the number of nodes in each state."""
    return node_service_pb2.FleetSummary(
        revision=fleet.revision,
        synced=fleet.counts[NodeState.SYNCED],
        behind=fleet.counts[NodeState.BEHIND],
        refusing=fleet.counts[NodeState.REFUSING],
        gone=fleet.counts[NodeState.GONE],
        released=fleet.counts[NodeState.RELEASED],
        counted=fleet.counted,
        holding=fleet.holding(fleet.revision) + fleet.members.gone_holding(fleet.revision),
        known=fleet.members.known,
        not_remembered=fleet.members.not_remembered,
        expected=expected_nodes(fleet, _holders_by_gateway(fleet)),
    )


def expected_nodes(fleet: Fleet, holding: Mapping[str, int]) -> list[node_pb2.ExpectedNodes]:
    """Return the gateways that expect a number of nodes. `holding` is the number of nodes that hold a revision, by gateway."""
    return [
        node_pb2.ExpectedNodes(
            gateway=resource_name(Gateway, e.gateway),
            expected=e.expected,
            counted=e.counted,
            holding=holding.get(e.gateway, 0),
        )
        for e in fleet.members.expected(fleet.audiences)
    ]


def _holders_by_gateway(fleet: Fleet) -> Mapping[str, int]:
    """Return the number of nodes that count and hold the newest revision, by gateway; nothing if no gateway expects any."""
    if not fleet.members.expected(fleet.audiences):
        return {}
    return by_gateway(n for n in fleet.nodes.values() if (n.connected or n.known) and fleet.revision in n.holds)


def by_gateway(nodes: Iterable[Node]) -> Mapping[str, int]:
    """Return the number of nodes by gateway. Nodes of one identity are one."""
    distinct = {(label, node.own_identity, "" if node.own_identity else node.id) for node in nodes for label in node.gateways}
    return Counter(label for label, _, _ in distinct)


def node_to_proto(fleet: Fleet, node: Node) -> node_pb2.Node:
    """Return the message of a node."""
    return node_pb2.Node(
        name=node_name(node.id),
        id=node.id,
        cluster=node.cluster,
        user_agent=node.user_agent,
        state=STATES[fleet.state_of(node)],
        gateways=[resource_name(Gateway, label) for label in node.gateways],
        held_revision=node.held_revision,
        target_revision=fleet.revision,
        variants=node.variants,
        streams=len(node.streams),
        peer=node.peer,
        connect_time=timestamp(node.connect_time) if node.connect_time is not None else None,
        last_seen_time=timestamp(node.last_seen),
        refusals=[_refusal_to_proto(r) for r in node.refusals],
        note=_note(fleet, node),
        models=sorted(node.audience.models or ()),
        locality=node_pb2.NodeLocality(region=node.locality.region, zone=node.locality.zone, sub_zone=node.locality.sub_zone),
        known=node.known,
        first_seen_time=timestamp(node.first_seen),
        disconnect_time=timestamp(node.gone_since) if node.gone_since is not None else None,
        release_time=timestamp(node.release_time) if node.release_time is not None else None,
        held_back=node.id in fleet.held_back,
        identity=node.identity,
    )


def block_to_proto(block: Block) -> node_pb2.NodeBlock:
    """Return the message of a block."""
    create_time = timestamp(block.time) if block.time else None
    return node_pb2.NodeBlock(client=block.client, reason=block.reason, author=block.author, create_time=create_time)


def _note(fleet: Fleet, node: Node) -> str:
    """Return the note on a node."""
    held_back = fleet.held_back.find(node.id)
    if held_back is None:
        return node.note
    note = f"held back: it holds configuration of another history, and would lose {lost_in_words(held_back)}"
    return f"{note}; {node.note}" if node.note else note


def _refusal_to_proto(refusal: Refusal) -> node_pb2.Refusal:
    return node_pb2.Refusal(
        type=short_name(refusal.type_url),
        resources=refusal.resources,
        message=refusal.message,
        revision=refusal.revision,
        time=timestamp(refusal.time),
    )
