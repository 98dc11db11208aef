"""Health checks by protocol. `test_endpoint.py` tests them against servers; here are the answers that servers rarely give."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.domain import HealthCheck, Protocol
from controlplane.http2 import frames
from controlplane.http2.headers import encoded
from controlplane.probe.health_check import failure
from tests.probe.servers import answer, server


async def grpc_failure(status: str, message: bytes, grpc_status: str) -> str:
    """Return the result of a gRPC health check that gets this answer. With `grpc_status` "", it has no such trailer."""
    text = frames.headers(1, encoded(((":status", status),)))
    text += frames.frame(frames.DATA, 0, 1, message)
    text += frames.headers(1, encoded((("grpc-status", grpc_status),) if grpc_status else ()), end=True)
    async with server(answer(text)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await failure(reader, writer, HealthCheck(), Protocol.GRPC, "iris", "http")
        finally:
            writer.close()


@pytest.mark.parametrize(
    ("status", "message", "grpc_status", "reason"),
    [
        ("200", b"\0\0\0\0\x02\x08\x01", "0", ""),
        ("200", bytes(5), "0", "health check answered UNKNOWN"),
        ("200", b"\0\0\0\0\x02\x08\x63", "0", "health check answered 99"),
        ("404", b"", "0", "health check answered 404"),
        ("200", b"", "14", "health check answered UNAVAILABLE"),
        ("200", b"", "99", "health check answered 99"),
    ],
)
async def test_answers_to_a_grpc_health_check(status: str, message: bytes, grpc_status: str, reason: str) -> None:
    assert await grpc_failure(status, message, grpc_status) == reason


async def test_a_malformed_message_is_an_error() -> None:
    with pytest.raises(ValueError):
        await grpc_failure("200", b"\0\0\0\0\x02\xff\xff", "0")


async def test_an_answer_without_a_grpc_status_is_an_error() -> None:
    with pytest.raises(ValueError, match="no grpc-status"):
        await grpc_failure("200", b"\0\0\0\0\x02\x08\x01", "")
