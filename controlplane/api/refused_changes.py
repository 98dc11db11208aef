"""The log of refused changes: who tried what, from where, and why it was refused.

Callers are told, too. But whoever is called at night about a disk that is full looks into the log of the server.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions

from controlplane.api.drafts import who
from controlplane.errors import Code, Error, shortened
from controlplane.observers.rate_limited_log import RateLimitedLog

# By whose fault it is (`errors.Code`): the caller's, the caller's in the present state, Turnout's or its machine's.
_LEVELS: Mapping[Code, int] = {
    **dict.fromkeys((Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.ALREADY_EXISTS), logging.INFO),
    **dict.fromkeys(
        (Code.FAILED_PRECONDITION, Code.ABORTED, Code.RESOURCE_EXHAUSTED, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED),
        logging.WARNING,
    ),
    **dict.fromkeys((Code.UNAVAILABLE, Code.INTERNAL), logging.ERROR),
}
# Characters of an error's text in a line.
_TEXT = 1_000
_FIELDS = ("code", "reason", "error", "author", "caller")


class RefusedChanges:
    """Writes a line for each change that was refused, with a limit on the rate for each level."""

    def __init__(self) -> None:
        self._lines = {
            level: RateLimitedLog(
                "change refused", "more changes refused", level, example=_FIELDS, logger="api", subject="method"
            )
            for level in set(_LEVELS.values())
        }
        # By method: True if it changes something. At most one entry for each method of the API.
        self._changes: dict[str, bool] = {}

    def refused(self, method: str, request: Any, context: Any, error: Error) -> None:
        """Write a line if the call would have changed something. A dry run would not."""
        if not self._is_change(method) or getattr(request, "validate_only", False):
            return
        # The store's own errors are not the caller's fault, whatever their code is.
        level = logging.ERROR if error.reason.startswith("STORE_") else _LEVELS[error.code]
        self._lines[level].log(
            method.rpartition(".")[2],
            code=error.code.name,
            reason=error.reason,
            error=shortened(error.message, _TEXT),
            **who(context),
        )

    def close(self) -> None:
        """Write the summaries that are pending."""
        for lines in self._lines.values():
            lines.close()

    def _is_change(self, method: str) -> bool:
        """Return True unless the proto says that a method, like `/turnout.v1.ModelService/GetModel`, has no side effects."""
        is_change = self._changes.get(method)
        if is_change is None:
            try:
                descriptor = descriptor_pool.Default().FindMethodByName(method.lstrip("/").replace("/", "."))
            except KeyError:
                return False
            is_change = descriptor.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
            # Services of gRPC itself, and those of Envoy, change nothing here.
            is_change = is_change and descriptor.containing_service.full_name.startswith("turnout.")
            self._changes[method] = is_change
        return is_change
