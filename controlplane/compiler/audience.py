"""A node's audience, and the reasons why an audience does not get more.

What a node gets follows from four things: the gateways that select it, its kind of client, the models that it names, if it
names any, and its region and zone, which decide which endpoints are near. All nodes for which these are the same are one
audience, and share one snapshot.

Two keys of a node's metadata are ours:

    turnout.models    the only models that the node gets: a list of names, or one text with commas between them
    turnout.client    `envoy` or `grpc`; without it, a client whose user agent begins with `grpc` is gRPC's own
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from controlplane.compiler.proxyless import unreachable
from controlplane.domain import Gateway, Locality, NodeSelector
from controlplane.domain.state import State
from controlplane.snapshot import Audience, Client

MODELS = "turnout.models"
CLIENT = "turnout.client"

# A note lists this many names, and the number of the others.
_LISTED = 3


class Node(Protocol):
    """The properties of a client that decide its audience, as it reports them itself."""

    @property
    def id(self) -> str: ...
    @property
    def cluster(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, object]: ...
    @property
    def user_agent(self) -> str: ...
    @property
    def locality(self) -> Locality: ...


def audience(state: State, node: Node) -> Audience:
    """Return a node's audience. It follows from the node and the gateways of `state`, never from its models."""
    selecting = (
        g.name for g in state.gateways.values() if g.nodes.matches(node.cluster, node.id, node.metadata, node.locality)
    )
    place = (node.locality.region, node.locality.zone)
    return Audience(tuple(sorted(selecting)), _client(node), _models(node), place)


class AudienceResolver:
    """Resolves nodes to audiences. Nodes of one audience get the same object, so that comparing it costs nothing."""

    __slots__ = ("_audiences",)

    # At the bound all are forgotten. Equal audiences are then two objects for a while, which costs time only.
    _BOUND = 4_096

    def __init__(self) -> None:
        self._audiences: dict[Audience, Audience] = {}

    def resolve(self, state: State, node: Node) -> Audience:
        """Return a node's audience, as `audience` does."""
        resolved = audience(state, node)
        if len(self._audiences) >= self._BOUND:
            self._audiences.clear()
        return self._audiences.setdefault(resolved, resolved)


def _client(node: Node) -> Client:
    kind = node.metadata.get(CLIENT)
    if kind in ("envoy", "grpc"):
        return Client(kind)
    return Client.GRPC if node.user_agent.lower().startswith("grpc") else Client.ENVOY


def _models(node: Node) -> frozenset[str] | None:
    names = node.metadata.get(MODELS)
    if isinstance(names, str):
        names = names.split(",")
    if not isinstance(names, list):
        return None
    return frozenset(name.strip() for name in names if isinstance(name, str) and name.strip())


def audiences(state: State) -> set[Audience]:
    """Return the audiences to check before a commit: each gateway alone, and as many together as could be on one node.

    All gateways together are one audience, unless two of them bind the same socket on different nodes. gRPC clients bind no
    sockets, so all gateways together are one audience of theirs.
    """
    groups: list[list[Gateway]] = []
    for name in sorted(state.gateways):
        gateway = state.gateways[name]
        fitting = (g for g in groups if not any(_same_socket(gateway, other) for other in g))
        group = next(fitting, None)
        if group is None:
            groups.append([gateway])
        else:
            group.append(gateway)
    if not groups:
        return {Audience()}
    alone = {Audience((name,)) for name in state.gateways}
    together = {Audience(tuple(g.name for g in group)) for group in groups}
    return alone | together | {Audience(tuple(sorted(state.gateways)), Client.GRPC)}


def _same_socket(a: Gateway, b: Gateway) -> bool:
    return a.port == b.port and (a.address == b.address or bool({a.address, b.address} & {"0.0.0.0", "::"}))


# -------------------------------------------------------------------------------------------------------------- notes


def unselected(state: State) -> str:
    """Return the reason why a node that no gateway selects gets nothing."""
    if not state.gateways:
        return "there are no gateways yet"
    selectors = [f"{name} wants {_selector(state.gateways[name].nodes)}" for name in sorted(state.gateways)]
    return f"no gateway selects it: {_listed(selectors, '; ')}"


def _selector(selector: NodeSelector) -> str:
    parts = [
        f"{word} in [{', '.join(values)}]"
        for word, values in (
            ("cluster", selector.clusters),
            ("id", selector.ids),
            ("region", selector.regions),
            ("zone", selector.zones),
            ("sub-zone", selector.sub_zones),
        )
        if values
    ]
    parts += [f"metadata {key} = {value}" for key, value in sorted(selector.metadata.items())]
    return " and ".join(parts)


def left_out(state: State, audience: Audience) -> str:
    """Return what an audience could be expected to get but does not, and why; "" if there is nothing."""
    reasons = []
    gateways = set(audience.gateways)
    models = state.models.keys() if audience.models is None else audience.models & state.models.keys()
    served = {name for name in models if not gateways.isdisjoint(state.models[name].gateways)}
    if audience.models is not None:
        unknown = sorted(audience.models - served)
        if unknown:
            reasons.append(f"it names models that its gateways don't have: {_listed(unknown, ', ')}")
        if not audience.models:
            reasons.append(f"its metadata {MODELS} names no model")
    if audience.client is Client.GRPC:
        lines = [line for name in sorted(served) for line in unreachable(state.models[name])]
        if lines:
            reasons.append(f"not given to gRPC clients: {_listed(lines, ', ')}")
    return "; ".join(reasons)


def _listed(items: Iterable[str], separator: str) -> str:
    items = list(items)
    more = len(items) - _LISTED
    return separator.join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")
