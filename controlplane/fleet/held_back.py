"""The nodes that are held back, because the newest revision would take something from them (`xds/held_back.py`)."""

from __future__ import annotations

from controlplane.compiler.decode import is_gateways_own
from controlplane.envoy_types import CLUSTER, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.errors import abbreviated, escaped, shortened
from controlplane.xds.events import HeldBack, StreamId

# Names that a sentence lists; the others are counted. Characters of a name, which the client chooses.
_NAMED, _NAME = 10, 100


class HeldBackNodes:
    """The held-back nodes, with what each would lose. Empty unless a node came with versions of another history."""

    def __init__(self) -> None:
        # By the id of the node and the stream; no node without a stream.
        self._nodes: dict[str, dict[StreamId, HeldBack]] = {}

    def note(self, node_id: str, stream: StreamId, event: HeldBack) -> None:
        """Apply an event of a stream of a node."""
        if event.revision:
            self._nodes.setdefault(node_id, {})[stream] = event
        else:
            self.closed(node_id, stream)

    def closed(self, node_id: str, stream: StreamId) -> None:
        """Forget a stream that is closed, or not held back any more."""
        streams = self._nodes.get(node_id)
        if streams is not None and streams.pop(stream, None) is not None and not streams:
            del self._nodes[node_id]

    def find(self, node_id: str) -> HeldBack | None:
        """Return what a node would lose over all its streams; None if it is not held back."""
        events = [*self._nodes.get(node_id, {}).values()]
        if len(events) < 2:
            return events[0] if events else None
        lost = tuple(sorted({name for e in events for name in e.lost}))
        newest = max(e.revision for e in events)
        return HeldBack(newest, lost, sum(e.omitted for e in events), any(e.unknown for e in events))

    def all(self) -> dict[str, HeldBack]:
        """Return what each held-back node would lose, by id."""
        return {node_id: event for node_id in self._nodes if (event := self.find(node_id)) is not None}

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._nodes


def lost_in_words(event: HeldBack) -> str:
    """Return what a held-back node would lose, like `listener 0.0.0.0:8080 and models a, b`.

    Clusters are named if their model stays, and keys if nothing else is lost.
    """
    listeners, models, clusters, keys = (
        [name for type_url, name in event.lost if type_url == wanted] for wanted in (LISTENER, ROUTES, CLUSTER, SCOPED_ROUTES)
    )
    models = [name for name in models if not is_gateways_own(name)]
    clusters = [name for name in clusters if name.partition("/")[0] not in models]
    parts = [("listener", listeners), ("model", models), ("cluster", clusters)]
    if not listeners and not models and not clusters:
        parts.append(("key", keys))
    named = [f"{noun}{'s' if len(names) > 1 else ''} {_listed(names)}" for noun, names in parts if names]
    if event.omitted:
        named.append(f"{event.omitted:,} more resources")
    if event.unknown:
        named.append("anything else: not all that is held is known" if named else "anything: what is held is not known")
    return " and ".join(named)


def _listed(names: list[str]) -> str:
    return abbreviated([escaped(shortened(name, _NAME)) for name in names[:_NAMED]] + names[_NAMED:], _NAMED)
