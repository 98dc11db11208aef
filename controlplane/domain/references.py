"""References: how one object names another that it needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reference:
    """A field of one object that names another object, its target."""

    # Path of the field from the top of the object that holds it, like `tls.certificate`.
    field: str
    # Collection and label of the target.
    collection: str
    label: str
    # The kind that a secret must have, a key of `SECRET_KINDS`; "" if the target is not a secret.
    kind: str = ""

    @property
    def resource_name(self) -> str:
        """The full name of the target."""
        return f"{self.collection}/{self.label}"
