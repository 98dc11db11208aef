"""The table of nouns: one row for each kind of object in desired state.

State, changes, the store's codec, listings and error texts are derived from these rows. A resource name is
`COLLECTION/LABEL`, like `models/iris`.

To add a noun, write its class with `collection`, `name`, `resource_name` and `references`. Then add the class to `Object`, and
a row to `COLLECTIONS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from controlplane.domain.gateway import ROUTING_KINDS, Gateway
from controlplane.domain.model import Model
from controlplane.domain.secret import Secret
from controlplane.errors import Error, abbreviated, did_you_mean, not_found

Object = Gateway | Model | Secret

T = TypeVar("T", bound=Object)


@dataclass(frozen=True, slots=True)
class Collection:
    """A row of the table: the facts about one kind of object."""

    # The class of the objects. `noun.collection` is the first part of a resource name, and the field's name in a manifest.
    noun: type[Object]
    # The noun in sentences about one object, and the name of the request's field that holds one object.
    singular: str
    # The fields whose value may be of several classes. By field, then by the name that the store writes: the class.
    unions: Mapping[str, Mapping[str, type]] = field(default_factory=dict)
    # True if objects hold a private key. The store seals the key, and no text may show it.
    sensitive: bool = False

    @property
    def name(self) -> str:
        """The collection's name, like `models`."""
        return self.noun.collection

    def resource_name(self, label: str) -> str:
        """Return the full name of one object, like `models/iris`."""
        return f"{self.name}/{label}"

    def not_found(self, label: str, labels: Iterable[str]) -> Error:
        """Return a NOT_FOUND that says which `labels` exist instead."""
        names = sorted(labels)
        return not_found(self.resource_name(label), did_you_mean(label, names) or self.existing(names))

    def existing(self, labels: Iterable[str]) -> str:
        """Return the hint for an error text that lists the existing `labels`."""
        names = sorted(labels)
        return f"there are: {abbreviated(names)}" if names else f"there are no {self.name} yet"


# In the order in which objects are listed and described. An object refers only to objects of other rows.
COLLECTIONS = (
    Collection(Gateway, "gateway", unions={"routing": ROUTING_KINDS}),
    Collection(Model, "model"),
    Collection(Secret, "secret", sensitive=True),
)

BY_NAME: Mapping[str, Collection] = {row.name: row for row in COLLECTIONS}
BY_NOUN: Mapping[type[Object], Collection] = {row.noun: row for row in COLLECTIONS}


def parse_name(resource_name: str) -> tuple[Collection, str] | None:
    """Return the collection and the label of a resource name; None when it is not the full name of an object."""
    name, _, label = resource_name.partition("/")
    row = BY_NAME.get(name)
    return (row, label) if row is not None and label else None


def resource_name(noun: type[Object], label: str) -> str:
    """Return the full name of an object of a class, like `models/iris`."""
    return BY_NOUN[noun].resource_name(label)


def alternatives() -> str:
    """Return the nouns as a list for a sentence: `gateway, model or secret`."""
    *others, last = (row.singular for row in COLLECTIONS)
    return f"{', '.join(others)} or {last}"
