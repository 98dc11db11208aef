"""Claims: the resources that a node says it holds. They are in memory only, until the node has ACKed a revision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controlplane.envoy_types import CLUSTER, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.xds.events import Claimed

NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Claims:
    """Names that a node may hold from an earlier stream, perhaps of another history.

    A set of names is None if the node came with a version that the index does not have. Then the node may hold any resource
    of the type, so a change may take anything from it. If the node claims nothing of a type, or exactly the newest snapshot,
    the set of names is empty. So a node holds at most its claims and the snapshot of its audience together.
    """

    listeners: frozenset[str] | None = NO_NAMES
    clusters: frozenset[str] | None = NO_NAMES
    scopes: frozenset[str] | None = NO_NAMES
    routes: frozenset[str] | None = NO_NAMES
    # (type URL, version): versions that the index of published versions does not have, at most one a type and stream.
    unknown_versions: tuple[tuple[str, str], ...] = field(default=())
    # (type URL, version) of the types whose names are None. A state that has this version takes nothing of the type away.
    held_versions: frozenset[tuple[str, str]] = field(default=frozenset())

    @property
    def is_unknown(self) -> bool:
        """Return whether the node may hold anything of some type."""
        return None in (self.listeners, self.clusters, self.scopes, self.routes)


def merged(streams: Iterable[Mapping[str, Claimed]]) -> Claims | None:
    """Return the claims of a node from those of its streams, by type URL; None if there are none."""
    names: dict[str, frozenset[str] | None] = {}
    unknown_versions: list[tuple[str, str]] = []
    held_versions: set[tuple[str, str]] = set()
    for claims in streams:
        for type_url, claim in claims.items():
            other = names.get(type_url, NO_NAMES)
            names[type_url] = None if other is None or claim.names is None else other | claim.names
            if claim.names is None:
                held_versions.add((type_url, claim.version))
            if claim.unknown_version:
                unknown_versions.append((type_url, claim.unknown_version))
    if not names:
        return None
    listeners, clusters, scopes, routes = (names.get(t, NO_NAMES) for t in (LISTENER, CLUSTER, SCOPED_ROUTES, ROUTES))
    return Claims(listeners, clusters, scopes, routes, tuple(unknown_versions), frozenset(held_versions))
