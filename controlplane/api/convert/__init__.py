"""Conversion of the nouns to messages and back. Only names, defaults and units change.

From a message, an unset field gets the default that its comment states, and all errors are collected, each with its path. To a
message, names are full, and a group of settings that are all at their defaults is left unset.

The conversions of a noun are in the module of its name, as `CONVERTER`: the conversions of `gateway` are in `gateway.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from controlplane.api.convert.converter import Converter
from controlplane.api.convert.names import duration, label, seconds, timestamp
from controlplane.domain import Object
from controlplane.domain.collections import COLLECTIONS

__all__ = ["CONVERTERS", "Converter", "duration", "label", "seconds", "timestamp"]

CONVERTERS: Mapping[type[Object], Converter] = {
    row.noun: import_module(f"{__name__}.{row.singular}").CONVERTER for row in COLLECTIONS
}
