"""Nouns as protos and back: names, defaults and units change, and nothing else.

Going in, what is unset takes the default that the proto's comment states, and everything that is wrong is gathered, each with
its path. Going out, names are full, and settings that are all at their defaults are left out as if they had not been set.
"""

from __future__ import annotations

from controlplane.api.convert.gateway import gateway_from_proto, gateway_to_proto
from controlplane.api.convert.model import model_from_proto, model_to_proto
from controlplane.api.convert.names import duration, label, seconds, timestamp
from controlplane.api.convert.secret import check_sound, secret_from_proto, secret_to_proto

__all__ = [
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
