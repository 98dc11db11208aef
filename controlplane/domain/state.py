"""Desired state as a value: the objects of all collections, which fit together.

Every `State` that exists is consistent, by the rules in `consistency.py`. A change returns a new `State`, or raises `Error`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from controlplane.domain import consistency
from controlplane.domain.collections import BY_NAME, COLLECTIONS, Object, T
from controlplane.domain.gateway import Gateway
from controlplane.domain.model import Model
from controlplane.domain.secret import Secret


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of one revision."""

    # By resource name, like `models/iris`: the new object, or None if the object is deleted.
    objects: Mapping[str, Object | None]

    def __bool__(self) -> bool:
        return bool(self.objects)


@dataclass(frozen=True, slots=True, init=False)
class State:
    """The desired state of one revision.

    Always true: there is a mapping for each row of `COLLECTIONS`. If nothing in a collection changes, its mapping is the same
    object as in the state before.
    """

    # By collection and label (`models`, `iris`). Labels are in no particular order.
    collections: Mapping[str, Mapping[str, Object]]

    def __init__(self, *mappings: Mapping[str, Object]) -> None:
        """Take a mapping of objects by label for each collection, in the order of `COLLECTIONS`. Missing ones are empty."""
        if len(mappings) > len(COLLECTIONS):
            raise TypeError(f"{len(mappings)} mappings for {len(COLLECTIONS)} collections")
        names = (row.name for row in COLLECTIONS)
        object.__setattr__(self, "collections", dict(zip_longest(names, mappings, fillvalue={})))

    @property
    def gateways(self) -> Mapping[str, Gateway]:
        """The gateways by label."""
        return self.collections[Gateway.collection]  # type: ignore[return-value]

    @property
    def models(self) -> Mapping[str, Model]:
        """The models by label."""
        return self.collections[Model.collection]  # type: ignore[return-value]

    @property
    def secrets(self) -> Mapping[str, Secret]:
        """The secrets by label."""
        return self.collections[Secret.collection]  # type: ignore[return-value]

    def of(self, noun: type[T]) -> Mapping[str, T]:
        """Return the objects of one class by label."""
        return self.collections[noun.collection]  # type: ignore[return-value]

    def get(self, resource_name: str) -> Object | None:
        """Return the object with a resource name, or None."""
        collection, _, label = resource_name.partition("/")
        return self.collections.get(collection, {}).get(label)

    def require(self, noun: type[T], label: str) -> T:
        """Return the object with a label. Errors: NOT_FOUND."""
        objects = self.of(noun)
        if label not in objects:
            raise BY_NAME[noun.collection].not_found(label, objects)
        return objects[label]

    def objects(self) -> Iterator[Object]:
        """Yield all objects: collections in the order of `COLLECTIONS`, each sorted by label."""
        for objects in self.collections.values():
            yield from (objects[label] for label in sorted(objects))

    def changes_to(self, other: State) -> Changes:
        """Return the changes that lead from this state to `other`."""
        changed: dict[str, Object | None] = {}
        for name, mine in self.collections.items():
            theirs = other.collections[name]
            if mine is theirs:
                continue
            for label in sorted(mine.keys() | theirs.keys()):
                old, new = mine.get(label), theirs.get(label)
                if old is not new and old != new:
                    changed[BY_NAME[name].resource_name(label)] = new
        return Changes(changed)

    def applied(self, changes: Changes) -> State:
        """Return this state with `changes` made. Errors: those of `consistency.check`."""
        new = self.replayed(changes)
        consistency.check(self, new, changes.objects)
        return new

    def replayed(self, changes: Changes) -> State:
        """Return this state with `changes` made, without a check. It is for changes that were checked before."""
        copies: dict[str, dict[str, Object]] = {}
        for resource_name, obj in changes.objects.items():
            collection, _, label = resource_name.partition("/")
            objects = copies.get(collection)
            if objects is None:
                objects = copies[collection] = dict(self.collections[collection])
            if obj is None:
                objects.pop(label, None)
            else:
                objects[label] = obj
        return State(*(copies.get(name, objects) for name, objects in self.collections.items()))
