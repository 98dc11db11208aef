"""The fleet: what each node holds, refuses and reports, as a fold of the events of all xDS streams.

`fleet.py` applies the events and keeps the counts. `node.py` is one node. `held_revisions.py` has the revisions that a stream
or a node holds, and `claims.py` what a node says that it holds before it has ACKed anything. The package does no I/O, and the
time is an argument.
"""

from __future__ import annotations

from controlplane.fleet.claims import Claims
from controlplane.fleet.fleet import GONE_NODES, GONE_SECONDS, Fleet
from controlplane.fleet.held_revisions import HeldRevisions
from controlplane.fleet.node import HISTORY, Node, NodeState, ProgressState, Refusal

__all__ = [
    "GONE_NODES",
    "GONE_SECONDS",
    "HISTORY",
    "Claims",
    "Fleet",
    "HeldRevisions",
    "Node",
    "NodeState",
    "ProgressState",
    "Refusal",
]
