"""Which audience a node is of, and why it is not given more.

What a node is given follows from three things: the gateways that select it, what kind of client it is, and the models that
it names, if it names any. All nodes for which these are the same are one audience, and share one snapshot.

Two keys of a node's metadata are ours:

    turnout.models    the models that it is given, and no others: a list of names, or one text with commas between them
    turnout.client    `envoy` or `grpc`; without it, clients whose user agent opens with `grpc` are gRPC's own
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

# Names in a note; the rest is counted.
_MOST = 3


class Node(Protocol):
    """What a client says of itself."""

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
    return Audience(tuple(sorted(selecting)), _client(node), _models(node))


class AudienceResolver:
    """Resolves nodes to audiences. Nodes of one audience get the same object, so that comparing it costs nothing."""

    __slots__ = ("_audiences",)

    # At the bound all are forgotten; equal audiences are then two objects for a while, which costs time only.
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
    said = node.metadata.get(CLIENT)
    if said in ("envoy", "grpc"):
        return Client(said)
    return Client.GRPC if node.user_agent.lower().startswith("grpc") else Client.ENVOY


def _models(node: Node) -> frozenset[str] | None:
    said = node.metadata.get(MODELS)
    if isinstance(said, str):
        said = said.split(",")
    if not isinstance(said, list):
        return None
    return frozenset(name.strip() for name in said if isinstance(name, str) and name.strip())


def audiences(state: State) -> set[Audience]:
    """The audiences that are checked before a commit: each gateway, and as many together as could be on one node.

    All together is one audience, unless two gateways want one socket, on different nodes. gRPC clients open no sockets, so all
    gateways together are one audience of theirs.
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
    found = {Audience((name,)) for name in state.gateways} | {Audience(tuple(g.name for g in group)) for group in groups}
    return found | {Audience(tuple(sorted(state.gateways)), Client.GRPC)}


def _same_socket(a: Gateway, b: Gateway) -> bool:
    return a.port == b.port and (a.address == b.address or bool({a.address, b.address} & {"0.0.0.0", "::"}))


# -------------------------------------------------------------------------------------------------------------- notes


def unselected(state: State) -> str:
    """Why a node that no gateway selects has none."""
    if not state.gateways:
        return "there are no gateways yet"
    wants = [f"{name} wants {_wants(state.gateways[name].nodes)}" for name in sorted(state.gateways)]
    return f"no gateway selects it: {_some(wants, '; ')}"


def _wants(selector: NodeSelector) -> str:
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
    """What an audience is not given that it could be meant to have, and why; "" when nothing."""
    said = []
    gateways = set(audience.gateways)
    if audience.models is not None:
        there = {n for n in audience.models if n in state.models and not gateways.isdisjoint(state.models[n].gateways)}
        unknown = sorted(audience.models - there)
        if unknown:
            said.append(f"it names models that its gateways don't have: {_some(unknown, ', ')}")
        if not audience.models:
            said.append(f"its metadata {MODELS} names no model")
    if audience.client is Client.GRPC:
        models = (state.models[n] for n in sorted(state.models if audience.models is None else there))
        lines = [line for m in models if not gateways.isdisjoint(m.gateways) for line in unreachable(m)]
        if lines:
            said.append(f"not given to gRPC clients: {_some(lines, ', ')}")
    return "; ".join(said)


def _some(items: Iterable[str], separator: str) -> str:
    items = list(items)
    more = len(items) - _MOST
    return separator.join(items[:_MOST]) + (f" and {more} more" if more > 0 else "")
