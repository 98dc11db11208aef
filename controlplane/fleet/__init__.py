"""The fleet: what each node holds, refuses and reports, as a fold of the events of all xDS streams.

`membership.py` defines which nodes count. `fleet.py` applies the events and keeps the counts, `members.py` those of nodes that
are not connected. `node.py` is one node. `held_revisions.py` has the revisions that a stream or a node holds, and `claims.py`
what a node says that it holds before it has ACKed anything. The package does no I/O, and the time is an argument.
"""

from __future__ import annotations

from controlplane.fleet.claims import Claims
from controlplane.fleet.fleet import Fleet
from controlplane.fleet.held_revisions import HeldRevisions
from controlplane.fleet.members import RELEASED_NODES, RELEASED_SECONDS, Members
from controlplane.fleet.membership import MAX_REMEMBERED, ExpectedNodes, RememberedNode
from controlplane.fleet.node import HISTORY, Node, NodeState, ProgressState, Refusal

__all__ = [
    "HISTORY",
    "MAX_REMEMBERED",
    "RELEASED_NODES",
    "RELEASED_SECONDS",
    "Claims",
    "ExpectedNodes",
    "Fleet",
    "HeldRevisions",
    "Members",
    "Node",
    "NodeState",
    "ProgressState",
    "Refusal",
    "RememberedNode",
]
