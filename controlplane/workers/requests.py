"""Requests from the main process to one worker that wait for their responses."""

from __future__ import annotations

import asyncio
import itertools

from controlplane.errors import Code, Error
from controlplane.workers.link import Link
from controlplane.workers.messages import Request, Response

# A worker must answer a request within this time. Seconds.
TIMEOUT = 10.0


class PendingRequests:
    """The requests of one worker."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers = itertools.count(1)
        # By number of the request. Each is removed when its `send` returns, after `TIMEOUT` at the latest.
        self._pending: dict[int, asyncio.Future[object]] = {}
        self._closed = False

    async def send(self, method: str, node_id: str) -> object:
        """Send a request, and return the value of its response; None when the worker ends first.

        Errors: UNAVAILABLE / WORKER_GONE when it does not answer within `TIMEOUT` seconds.
        """
        if self._closed:
            return None
        number = next(self._numbers)
        self._pending[number] = asyncio.get_running_loop().create_future()
        self._link.send(Request(number, method, node_id))
        try:
            return await asyncio.wait_for(self._pending[number], TIMEOUT)
        except TimeoutError:
            raise Error(Code.UNAVAILABLE, "WORKER_GONE", "a worker process does not answer; try again") from None
        finally:
            del self._pending[number]

    def resolve(self, response: Response) -> None:
        """Pass a response to the request that it answers. A response that comes too late is dropped."""
        pending = self._pending.get(response.number)
        if pending is not None and not pending.done():
            pending.set_result(response.value)

    def close(self) -> None:
        """Resolve all requests, also later ones, with None: the worker has ended."""
        self._closed = True
        for pending in self._pending.values():
            if not pending.done():
                pending.set_result(None)
