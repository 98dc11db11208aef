"""The functions that patches name, as the compiler sees them: from the bytes of a message to the bytes of another.

The compiler does no I/O. The app gives it a `Functions` that calls a plug-in in a child process (`patch_functions/`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class FunctionFailed(ValueError):
    """A function can't be called, or it failed. The text says why, and where in the plug-in."""


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """One call of a function of a plug-in."""

    hash: str  # of the plug-in's files
    function: str
    settings: str  # a JSON object
    message_type: str  # the full name of the message that it takes and returns, like `envoy.config.cluster.v3.Cluster`
    body: bytes  # the message, serialised deterministically


class Functions(Protocol):
    """The functions of plug-ins."""

    # The hash of the installed plug-in; "" if there is none.
    installed: str

    def call(self, call: FunctionCall) -> bytes:
        """Return the message that a function returns, serialised. Equal calls give equal results. Errors: FunctionFailed."""


class NoFunctions(Functions):
    """A server without a plug-in."""

    installed = ""

    def call(self, call: FunctionCall) -> bytes:
        """Errors: FunctionFailed."""
        raise FunctionFailed("the server has no plug-in with functions: start it with --patches")


NO_FUNCTIONS = NoFunctions()
