"""Short names of enum values, as files may write them: `grpc` for PROTOCOL_GRPC, `1.2` for TLS_VERSION_1_2."""

from __future__ import annotations

import re
from collections.abc import Iterable


def short_values(enum: str, values: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the numbers of an enum's values by short name, without the value that means unset.

    `enum` is the enum's own name, and `values` are full names with their numbers.
    """
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum).upper() + "_"
    return {short(name.removeprefix(prefix)): number for name, number in values if number}


def short(text: str) -> str:
    """Return a name as short names are spelled: in lower case, with points between numbers."""
    return text.lower().replace("_", ".")
