"""Counts the nodes of each gateway by identity, so that one client can't stand for several nodes.

A client with a certificate may use every node id that its rule allows. Where a number of nodes matters, all nodes of one
identity are one node, unless the rule of the identity says that many nodes share it. A node without one counts by its id.
"""

from __future__ import annotations

from collections import Counter

from controlplane.fleet.counting import decrement
from controlplane.fleet.node import Node


class IdentityCounts:
    """By gateway: the number of nodes whose identity another node of the gateway has, too."""

    def __init__(self) -> None:
        # By node id: the identity and the gateways with which it is counted.
        self._counted: dict[str, tuple[str, tuple[str, ...]]] = {}
        # Nodes by identity and gateway; no zero counts.
        self._nodes: Counter[tuple[str, str]] = Counter()
        # By gateway; no zero counts.
        self.surplus: Counter[str] = Counter()

    def update(self, node: Node) -> None:
        """Count a node as it is now. Nothing happens if it has not changed."""
        counts = bool(node.own_identity) and (node.connected or node.known)
        after = (node.own_identity, node.gateways) if counts else None
        before = self._counted.get(node.id)
        if after == before:
            return
        if before is not None:
            self._remove(*before)
            del self._counted[node.id]
        if after is not None:
            self._add(*after)
            self._counted[node.id] = after

    def _add(self, identity: str, gateways: tuple[str, ...]) -> None:
        for gateway in gateways:
            self._nodes[identity, gateway] += 1
            if self._nodes[identity, gateway] > 1:
                self.surplus[gateway] += 1

    def _remove(self, identity: str, gateways: tuple[str, ...]) -> None:
        for gateway in gateways:
            decrement(self._nodes, (identity, gateway))
            if (identity, gateway) in self._nodes:
                decrement(self.surplus, gateway)
