"""The health service of gRPC, which needs no credential. Its method List is not served: strangers need no list of services."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health

_HealthServicer: Any = vars(health)["aio"].HealthServicer  # missing in the type stubs


class Health(_HealthServicer):  # type: ignore[misc]
    """The health of the server: SERVING from the end of its start until it stops."""

    async def List(self, request: Any, context: Any) -> None:
        # The library's method raises, and gRPC logs a traceback for each call of a stranger.
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "use Check or Watch")
