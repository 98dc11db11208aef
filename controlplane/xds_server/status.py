"""The gRPC status of an xDS stream, from an `Error`: the one place for both transports."""

from __future__ import annotations

import structlog

from controlplane.errors import Error
from controlplane.http2.grpc_status import Status, StatusCode, StatusError
from controlplane.http2.handler import GuardedHandler

log = structlog.get_logger("xds")

_UNEXPECTED = Status(StatusCode.INTERNAL, "something went wrong in the control plane; its log says what")


def to_status(error: Error) -> Status:
    """Return the status of an error. `Code` has the names of gRPC's codes."""
    return Status(StatusCode[error.code.name], error.message)


class XdsHandler(GuardedHandler):
    """A handler that ends its stream with the status of an `Error`."""

    __slots__ = ()

    def status_of(self, error: Exception) -> Status:
        """Return the status of an exception. An unexpected one is logged, and its text is not sent to the client."""
        if isinstance(error, Error):
            return to_status(error)
        if isinstance(error, StatusError):
            return error.status
        log.error("stream failed", exc_info=error)
        return _UNEXPECTED
