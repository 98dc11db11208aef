"""The table of least Envoy versions: the oldest Envoy that has a feature of desired state.

An older Envoy ignores the fields that it does not know, or refuses the resource. So a dry run warns about the connected nodes
that are too old for what changes, and `turnout status` names those that are too old for what they have.

To add a feature, add a row to `FEATURES`. Features that every supported Envoy has need none: the first row covers them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from controlplane.compiler.audience import Node
from controlplane.domain import Gateway, Model, Object
from controlplane.domain.state import State
from controlplane.errors import abbreviated
from controlplane.snapshot import Audience, Client

_USER_AGENT = re.compile(r"envoy (\d+)\.(\d+)\.(\d+)\b", re.I)

# Nodes and objects that a sentence names; the others are counted.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Feature:
    """A row of the table: a feature, and the oldest Envoy that has it."""

    # The field of desired state, for a sentence: `mirror.x`. Empty: the object as a whole.
    field: str
    # Major and minor version.
    least: tuple[int, int]
    # The effect on an older Envoy, as the end of a sentence.
    otherwise: str
    # One of the two: returns True if a gateway, or a model, uses the feature.
    gateway: Callable[[Gateway], bool] | None = None
    model: Callable[[Model], bool] | None = None


# In no particular order, except that the first row is the oldest supported Envoy.
FEATURES: tuple[Feature, ...] = (Feature("", (1, 36), "older versions are not supported", gateway=lambda gateway: True),)


@dataclass(frozen=True, slots=True)
class Need:
    """An object that needs an Envoy of a feature's version."""

    feature: Feature
    # Resource name of the object, like `models/iris`.
    name: str
    # Labels of the gateways whose nodes need the feature.
    gateways: frozenset[str]
    # Label of the model; empty if the object is a gateway.
    model: str = ""

    def concerns(self, audience: Audience) -> bool:
        """Return True if nodes of an audience get the object."""
        if audience.client is not Client.ENVOY or self.gateways.isdisjoint(audience.gateways):
            return False
        return not self.model or audience.models is None or self.model in audience.models


@dataclass(frozen=True, slots=True)
class Outdated:
    """Nodes that are too old for a feature that their gateway or its models use."""

    feature: Feature
    # Resource names of the objects that use it, sorted.
    names: tuple[str, ...]
    # Labels of the models among them, sorted.
    models: tuple[str, ...]
    # Ids of the nodes, sorted.
    nodes: tuple[str, ...]
    # The oldest of their versions, like `1.35.2`.
    oldest: str

    @property
    def text(self) -> str:
        """Return a sentence: which nodes are too old, for what, and the effect."""
        run = "runs" if len(self.nodes) == 1 else "run"
        or_newer = " or newer" if len(self.nodes) > 1 else ""
        field = f"{self.feature.field} of " if self.feature.field else ""
        needs = "needs" if self.feature.field or len(self.names) == 1 else "need"
        major, minor = self.feature.least
        return (
            f"{abbreviated([f'nodes/{node[:60]}' for node in self.nodes], _NAMED)} {run} Envoy {self.oldest}{or_newer}, and "
            f"{field}{abbreviated(self.names, _NAMED)} {needs} {major}.{minor}: {self.feature.otherwise}"
        )


def needs(state: State, features: Iterable[Feature] = FEATURES) -> set[Need]:
    """Return what the objects of a state need. The cost grows with the number of objects and features."""
    features = tuple(features)
    return {
        need for objects in (state.gateways, state.models) for obj in objects.values() for need in _needs_of(obj, features)
    }


def new_needs(before: State, after: State, features: Iterable[Feature] = FEATURES) -> set[Need]:
    """Return what the objects of `after` need that nodes did not need before: by an object, or because a gateway selects them.

    A change that only moves traffic needs nothing new. Finding that out costs one comparison by identity for each object.
    """
    features = tuple(features)
    added: set[Need] = set()
    selecting: set[str] = set()  # labels of gateways that are new, or select other nodes
    for name, obj in before.changes_to(after).objects.items():
        old = before.get(name)
        if isinstance(obj, Gateway) and (not isinstance(old, Gateway) or old.nodes != obj.nodes):
            selecting.add(obj.name)
            added.update(_needs_of(obj, features))
        elif obj is not None:
            added.update(set(_needs_of(obj, features)) - set(_needs_of(old, features)))
    if selecting:
        added.update(need for need in needs(after, features) if not need.gateways.isdisjoint(selecting))
    return added


N = TypeVar("N", bound=Node)


def older_nodes(nodes: Iterable[N], features: Iterable[Feature] = FEATURES) -> list[N]:
    """Return the nodes that lack a feature of the table: none, if each runs a new Envoy or does not say what it runs."""
    newest = max(feature.least for feature in features)
    is_old: dict[str, bool] = {}  # by user agent
    older = []
    for node in nodes:
        if node.user_agent not in is_old:
            version = envoy_version(node.user_agent)
            is_old[node.user_agent] = version is not None and version[:2] < newest
        if is_old[node.user_agent]:
            older.append(node)
    return older


def outdated(needed: Iterable[Need], nodes: Iterable[tuple[Node, Audience]]) -> list[Outdated]:
    """Return the nodes that are too old for what they get, by feature, the newest feature first.

    A node that does not say which Envoy it is counts as new enough.
    """
    needed = tuple(needed)
    lacks: dict[Feature, tuple[set[Need], dict[str, tuple[int, int, int]]]] = {}
    concerned: dict[Audience, tuple[Need, ...]] = {}
    for node, audience in nodes:
        version = envoy_version(node.user_agent)
        if version is None:
            continue
        if audience not in concerned:
            concerned[audience] = tuple(need for need in needed if need.concerns(audience))
        for need in concerned[audience]:
            if version[:2] < need.feature.least:
                lacking, ids = lacks.setdefault(need.feature, (set(), {}))
                lacking.add(need)
                ids[node.id] = version
    rows = sorted(lacks.items(), key=lambda row: (row[0].least, row[0].field), reverse=True)
    return [_outdated(feature, lacking, ids) for feature, (lacking, ids) in rows]


def _outdated(feature: Feature, lacking: set[Need], ids: Mapping[str, tuple[int, int, int]]) -> Outdated:
    names, models = sorted(need.name for need in lacking), sorted(need.model for need in lacking if need.model)
    return Outdated(feature, tuple(names), tuple(models), tuple(sorted(ids)), "{}.{}.{}".format(*min(ids.values())))


def envoy_version(user_agent: str) -> tuple[int, int, int] | None:
    """Return the version of `envoy 1.40.0`; None for another client, or an unknown version."""
    match = _USER_AGENT.match(user_agent)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _needs_of(obj: Object | None, features: tuple[Feature, ...]) -> list[Need]:
    if not isinstance(obj, Gateway | Model):
        return []
    if isinstance(obj, Gateway):
        used = [f for f in features if f.gateway is not None and f.gateway(obj)]
        return [Need(feature, obj.resource_name, frozenset((obj.name,))) for feature in used]
    used = [f for f in features if f.model is not None and f.model(obj)]
    return [Need(feature, obj.resource_name, frozenset(obj.gateways), obj.name) for feature in used]
