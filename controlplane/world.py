"""One revision as every audience sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from controlplane.snapshot import Snapshot
from controlplane.state import State
from controlplane.store import Head

Audience = tuple[str, ...]


class Compiles(Protocol):
    """What a world needs of the compiler."""

    def compile(self, state: State, revision: int, audience: Audience, previous: Snapshot | None = None) -> Snapshot: ...


class World:
    """A revision, and its snapshot for each audience: compiled when first asked for, once, and shared by all its nodes."""

    def __init__(self, head: Head, compiler: Compiles, previous: Mapping[Audience, Snapshot] | None = None) -> None:
        self.head = head
        self._compiler = compiler
        # The newest earlier snapshot of each audience, so that what did not change is not made again.
        self._previous = previous or {}
        self._snapshots: dict[Audience, Snapshot] = {}
        # Audiences that some stream asked for in this world.
        self._asked: set[Audience] = set()

    @property
    def revision(self) -> int:
        return self.head.number

    def snapshot(self, audience: Audience) -> Snapshot:
        """What this audience should hold."""
        self._asked.add(audience)
        return self._compiled(audience)

    def next(self, head: Head) -> World:
        """The world of a newer head, with the snapshots ready that this one was asked for."""
        live = {a: s for a, s in self._snapshots.items() if a in self._asked and head.state.gateways.keys() >= set(a)}
        world = World(head, self._compiler, live)
        world._compile(live)
        return world

    def _compile(self, audiences: Iterable[Audience]) -> None:
        for audience in audiences:
            self._compiled(audience)

    def _compiled(self, audience: Audience) -> Snapshot:
        snapshot = self._snapshots.get(audience)
        if snapshot is None:
            previous = self._previous.get(audience)
            snapshot = self._compiler.compile(self.head.state, self.head.number, audience, previous)
            self._snapshots[audience] = snapshot
        return snapshot
