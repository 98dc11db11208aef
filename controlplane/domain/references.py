"""References: how one object names another that it needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reference:
    """One object that another one needs."""

    # Path from the top of the object that needs it, like `tls.certificate`.
    field: str
    # Collection and label of the object that is needed.
    collection: str
    label: str
    # The kind of secret that is needed, a key of `SECRET_KINDS`; "" for references to other objects.
    kind: str = ""

    @property
    def resource_name(self) -> str:
        """The full name of the object that is needed."""
        return f"{self.collection}/{self.label}"
