"""The transport `grpc` with a fake gRPC call. `test_discovery.py` tests both transports with real servers."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import grpc
import pytest
from structlog.testing import capture_logs

from controlplane.errors import Code
from controlplane.http2.grpc_status import Status
from controlplane.http2.handler import GuardedHandler
from controlplane.xds_server import grpc_transport


async def test_a_client_that_leaves_while_grpc_has_a_message_for_it_is_no_error() -> None:
    class Gone:
        async def send_initial_metadata(self, _: object) -> None:
            raise grpc.aio.InternalError('Failed "execute_batch": (SendInitialMetadataOperation,)')

        async def read(self) -> object:
            return await asyncio.Future()

    class Handler(GuardedHandler):
        statuses: ClassVar[list[Status | None]] = []

        def end(self, status: Status | None = None) -> None:
            self.statuses.append(status)
            call.end(status)

    call: Any = grpc_transport._Call(Gone())
    with capture_logs() as lines:
        await call.run(Handler())
    assert set(Handler.statuses) == {None}
    assert not lines


def test_the_address_of_a_peer_is_host_and_port() -> None:
    assert grpc_transport.address("ipv4:127.0.0.1:5000") == "127.0.0.1:5000"
    assert grpc_transport.address("ipv6:%5B::1%5D:5000") == "[::1]:5000"


@pytest.mark.parametrize("code", list(Code))
def test_every_kind_of_error_has_a_status(code: Code) -> None:
    assert grpc.StatusCode[code.name].value[1] == code.value
