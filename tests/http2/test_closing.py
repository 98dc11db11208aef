"""The steps of closing a socket."""

from __future__ import annotations

import asyncio
from typing import Any

from controlplane.http2.closing import Closing
from controlplane.http2.limits import ConnectionLimits

LIMITS = ConnectionLimits(close_timeout=0.01, keepalive_timeout=0.01)


class FakeTransport:
    """Records the calls of a transport."""

    def __init__(self, *, tls: bool) -> None:
        self.calls: list[str] = []
        self._tls = tls

    def can_write_eof(self) -> bool:
        return not self._tls

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)


async def calls(*, tls: bool) -> list[str]:
    transport: Any = FakeTransport(tls=tls)
    Closing(transport, asyncio.get_running_loop(), LIMITS)
    async with asyncio.timeout(10):
        while "abort" not in transport.calls:  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.002)
    recorded: list[str] = transport.calls
    return recorded


async def test_tcp_closes_after_the_client_had_time_to_read() -> None:
    assert await calls(tls=False) == ["write_eof", "resume_reading", "close", "abort"]


async def test_tls_has_its_own_closing_handshake() -> None:
    assert await calls(tls=True) == ["close", "abort"]


async def test_no_further_step_is_taken_after_the_socket_is_gone() -> None:
    transport: Any = FakeTransport(tls=False)
    closing = Closing(transport, asyncio.get_running_loop(), LIMITS)
    closing.cancel()
    await asyncio.sleep(0.03)  # nothing should happen, so there is no condition to wait for
    assert transport.calls == ["write_eof", "resume_reading"]
