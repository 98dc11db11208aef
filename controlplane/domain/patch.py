"""Patches: changes of the Envoy resources that an object is compiled to, where its fields can't express something.

The domain knows only that the content of a patch is a JSON object. `compiler/patches.py` applies and checks it. For a function
the content is its settings, and the hash says of which plug-in it is (`patch_functions.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any

from controlplane.domain.checks import check_distinct, check_label, check_range
from controlplane.errors import abbreviated, invalid

# Bytes of the content of one patch, and patches of one object.
_MAX_CONTENT, _MAX_PATCHES = 64 << 10, 16
_MAX_FILTER_NAME = 256
_FUNCTION = re.compile("[a-z][a-z0-9_]{0,62}")
_HASH = re.compile("[0-9a-f]{32}")


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
    FUNCTION = "function"


GATEWAY_TARGETS = (
    PatchTarget.HTTP_FILTER,
    PatchTarget.LISTENER,
    PatchTarget.FILTER_CHAIN,
    PatchTarget.CONNECTION_MANAGER,
    PatchTarget.ADD_CLUSTER,
    PatchTarget.FUNCTION,
)
MODEL_TARGETS = (PatchTarget.VIRTUAL_HOST, PatchTarget.ROUTE, PatchTarget.FUNCTION)
VERSION_TARGETS = (PatchTarget.CLUSTER, PatchTarget.FUNCTION)


@dataclass(frozen=True, slots=True)
class Patch:
    """One change of a compiled resource. Of `before` and `after` at most one is set, and only for an HTTP filter.

    `function` and `hash` are set only for a function.
    """

    name: str
    target: PatchTarget
    content: str  # a JSON object; equal objects are equal texts
    before: str = ""  # the name of the filter that comes directly after the new one
    after: str = ""  # the name of the filter that comes directly before it
    function: str = ""  # its name in the plug-in
    hash: str = ""  # of the plug-in's files; "" until the writer fills in that of the installed one

    def __post_init__(self) -> None:
        check_label(self.name)
        field = self.target.value
        try:
            form = json.loads(self.content, parse_float=_number)
            text = json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        except (ValueError, RecursionError):
            raise invalid(field, "is not JSON") from None
        if not isinstance(form, dict) or not (form or self.target is PatchTarget.FUNCTION):
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
        self._check_function()

    def _check_function(self) -> None:
        if self.target is not PatchTarget.FUNCTION:
            if self.function or self.hash:
                raise invalid(self.target.value, "is no function")
            return
        if not _FUNCTION.fullmatch(self.function):
            raise invalid(
                "function.name",
                f"'{self.function[:80]}' must have lower-case letters, digits and _, begin with a letter, "
                "and have at most 63 characters",
            )
        if self.hash and not _HASH.fullmatch(self.hash):
            raise invalid("function.hash", f"'{self.hash[:80]}' must have 32 hex digits, or be left out")

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
