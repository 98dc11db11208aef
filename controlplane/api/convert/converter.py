"""The interface of a noun's conversions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controlplane.domain import Object


@dataclass(frozen=True, slots=True)
class Converter:
    """The conversions of one noun."""

    # (message, the live object or None) -> the object of the message. Errors: INVALID_ARGUMENT at the object's fields.
    from_proto: Callable[[Any, Any], Object]
    # (object, its metadata or None) -> message.
    to_proto: Callable[[Any, Any], Any]
    # Fields that keep their live value when a request does not populate them.
    kept_if_unset: frozenset[str] = frozenset()
