"""Requests to a worker: answered, timed out, or ended with the worker."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.errors import Code, Error
from controlplane.workers import requests
from controlplane.workers.link import Link
from controlplane.workers.messages import Request, Response
from controlplane.workers.requests import PendingRequests


class RecordingLink(Link):
    """A link that records messages and does not send them."""

    def __init__(self) -> None:
        super().__init__(lambda _: None, lambda: None)
        self.sent: list[object] = []

    def send(self, message: object) -> None:
        self.sent.append(message)


async def started(pending: PendingRequests, *nodes: str) -> list[asyncio.Task[object]]:
    """Send a request about each node."""
    tasks = [asyncio.create_task(pending.send("describe", node)) for node in nodes]
    await asyncio.sleep(0)
    return tasks


async def test_each_response_resolves_the_request_of_its_number() -> None:
    link = RecordingLink()
    pending = PendingRequests(link)
    one, two = await started(pending, "a", "b")
    assert link.sent == [Request(1, "describe", "a"), Request(2, "describe", "b")]
    for response in (Response(2, "of b"), Response(1, "of a"), Response(1, "again"), Response(9, "unknown")):
        pending.resolve(response)
    assert (await one, await two) == ("of a", "of b")
    assert not pending._pending


async def test_a_worker_that_ends_resolves_its_requests_with_none() -> None:
    link = RecordingLink()
    pending = PendingRequests(link)
    (one,) = await started(pending, "a")
    pending.close()
    assert await one is None
    assert await pending.send("describe", "b") is None
    assert len(link.sent) == 1
    assert not pending._pending


async def test_a_request_without_a_response_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "TIMEOUT", 0.01)
    pending = PendingRequests(RecordingLink())
    with pytest.raises(Error) as caught:
        await pending.send("describe", "a")
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "WORKER_GONE")
    pending.resolve(Response(1, "too late"))
    assert not pending._pending
