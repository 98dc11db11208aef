"""Labels of gateways and models: keys with values by which rules of access choose objects. They change nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping

from controlplane.errors import invalid

MAX_LABELS = 16

_KEY = re.compile(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels by key, in the order of keys. Errors: INVALID_ARGUMENT at `labels` or `labels.KEY`."""
    if len(labels) > MAX_LABELS:
        raise invalid("labels", f"has {len(labels)} labels: at most {MAX_LABELS}")
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            problem = (
                f"the key '{key[:80]}' is not 1 to 63 of a-z, 0-9, '.', '_', '-' and '/', with a letter or digit at both ends"
            )
            raise invalid("labels", problem)
        if not _VALUE.fullmatch(value):
            problem = f"'{value[:80]}' is not 1 to 63 letters, digits, '.', '_' and '-', with a letter or digit at both ends"
            raise invalid(f"labels.{key}", problem)
    return dict(sorted(labels.items()))
