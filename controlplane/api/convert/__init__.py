"""Conversion of the nouns to messages and back: names, defaults and units change, and nothing else.

From a message, an unset field gets the default that its comment states, and all errors are collected, each with its path. To a
message, names are full, and a group of settings that are all at their defaults is left unset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.api.convert.gateway import gateway_from_proto, gateway_to_proto
from controlplane.api.convert.model import model_from_proto, model_to_proto
from controlplane.api.convert.names import duration, label, seconds, timestamp
from controlplane.api.convert.secret import check_sound, secret_from_proto, secret_to_proto
from controlplane.domain import Gateway, Model, Object, Secret

__all__ = [
    "CONVERTERS",
    "Converter",
    "check_sound",
    "duration",
    "gateway_from_proto",
    "gateway_to_proto",
    "label",
    "model_from_proto",
    "model_to_proto",
    "seconds",
    "secret_from_proto",
    "secret_to_proto",
    "timestamp",
]


@dataclass(frozen=True, slots=True)
class Converter:
    """The conversions of one noun."""

    # (message, the live object or None) -> the object that the caller sent. Errors: INVALID_ARGUMENT at the object's fields.
    from_proto: Callable[[Any, Any], Object]
    # (object, its metadata or None) -> message.
    to_proto: Callable[[Any, Any], Any]
    # Fields that keep their live value when a request does not populate them.
    kept_if_unset: frozenset[str] = frozenset()


def _sound_secret(proto: Any, live: Secret | None) -> Secret:
    secret = secret_from_proto(proto, live)
    check_sound(proto)
    return secret


# A row for each noun of `domain.collections`.
CONVERTERS: Mapping[type[Object], Converter] = {
    Gateway: Converter(lambda proto, live: gateway_from_proto(proto), gateway_to_proto),
    Model: Converter(model_from_proto, model_to_proto, frozenset({"split"})),
    Secret: Converter(_sound_secret, secret_to_proto),
}
