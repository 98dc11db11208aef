"""Patches: changes of the Envoy resources that an object is compiled to, where its fields can't express something.

The domain knows only that the content of a patch is a JSON object. `compiler/patches.py` applies and checks it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any

from controlplane.domain.checks import check_distinct, check_label, check_range
from controlplane.errors import abbreviated, invalid

# Bytes of the content of one patch, and patches of one object.
_MAX_CONTENT, _MAX_PATCHES = 64 << 10, 16
_MAX_FILTER_NAME = 256


class PatchTarget(Enum):
    """The message that a patch changes, by the name of its field in the API."""

    HTTP_FILTER = "http_filter"
    LISTENER = "listener"
    FILTER_CHAIN = "filter_chain"
    CONNECTION_MANAGER = "connection_manager"
    ADD_CLUSTER = "add_cluster"
    VIRTUAL_HOST = "virtual_host"
    ROUTE = "route"
    CLUSTER = "cluster"


GATEWAY_TARGETS = (
    PatchTarget.HTTP_FILTER,
    PatchTarget.LISTENER,
    PatchTarget.FILTER_CHAIN,
    PatchTarget.CONNECTION_MANAGER,
    PatchTarget.ADD_CLUSTER,
)
MODEL_TARGETS = (PatchTarget.VIRTUAL_HOST, PatchTarget.ROUTE)
VERSION_TARGETS = (PatchTarget.CLUSTER,)


@dataclass(frozen=True, slots=True)
class Patch:
    """One change of a compiled resource. Of `before` and `after` at most one is set, and only for an HTTP filter."""

    name: str
    target: PatchTarget
    content: str  # a JSON object; equal objects are equal texts
    before: str = ""  # the name of the filter that comes directly after the new one
    after: str = ""  # the name of the filter that comes directly before it

    def __post_init__(self) -> None:
        check_label(self.name)
        field = self.target.value
        try:
            form = json.loads(self.content, parse_float=_number)
            text = json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        except (ValueError, RecursionError):
            raise invalid(field, "is not JSON") from None
        if not isinstance(form, dict) or not form:
            raise invalid(field, "must be an object with at least one field")
        if (size := len(text.encode(errors="replace"))) > _MAX_CONTENT:
            raise invalid(field, f"has {size:,} bytes as JSON, but may have at most {_MAX_CONTENT:,}")
        object.__setattr__(self, "content", text)
        for place in ("before", "after"):
            check_range(len(getattr(self, place)), 0, _MAX_FILTER_NAME, f"{field}.{place}", " characters")
        if (self.before or self.after) and self.target is not PatchTarget.HTTP_FILTER:
            raise invalid(field, "has no place: only an HTTP filter has one")
        if self.before and self.after:
            raise invalid(f"{field}.after", "can't be set together with before: choose one of them")

    @property
    def form(self) -> dict[str, Any]:
        """The content as a JSON object. Each call returns a new one."""
        form: dict[str, Any] = json.loads(self.content)
        return form


def _number(text: str) -> float:
    """Return a number, without a fraction of zero: `1.0` and `1` are the same in JSON."""
    value = float(text)
    return int(value) if value.is_integer() else value


def check_patches(patches: Collection[Patch], targets: Collection[PatchTarget]) -> None:
    """Check the patches of an object, which may have these targets."""
    check_range(len(patches), 0, _MAX_PATCHES, "patches")
    check_distinct((patch.name for patch in patches), "patches")
    for i, patch in enumerate(patches):
        if patch.target not in targets:
            known = abbreviated([target.value for target in targets])
            raise invalid(f"patches[{i}].{patch.target.value}", f"is not a target of a patch of this object: {known}")
