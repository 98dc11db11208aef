"""DNS lookups that can be cancelled: each runs on a daemon thread of its own.

The event loop's own lookups run on a pool of threads that other work needs, too. If a DNS server did not answer, lookups would
fill that pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from threading import Thread


class Resolver:
    """Resolves DNS names."""

    # Lookups that run at a time. At the bound, further ones are refused.
    _BOUND = 16

    def __init__(self) -> None:
        self._running = 0

    async def resolve(self, name: str) -> list[str]:
        """Return the addresses of a name, IPv4 first, as Envoy prefers them.

        Errors: LookupError if the name has none; OSError if too many lookups are running. If the call is cancelled, the thread
        goes on until the system's lookup returns.
        """
        if self._running >= self._BOUND:
            raise OSError("too many names are being resolved")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[list[str] | None] = loop.create_future()

        def done(addresses: list[str] | None) -> None:
            self._running -= 1
            if not result.done():
                result.set_result(addresses)

        def look_up() -> None:
            addresses = _addresses(name)
            # The loop may have ended in the meantime.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done, addresses)

        try:
            Thread(target=look_up, name="probe-dns", daemon=True).start()
        except RuntimeError:
            raise OSError("no thread can be started for the lookup") from None
        self._running += 1
        addresses = await result
        if addresses is None:
            raise LookupError(name)
        return addresses


def _addresses(name: str) -> list[str] | None:
    """Return the distinct addresses of a name, IPv4 first; None if the name does not resolve."""
    try:
        entries = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    entries.sort(key=lambda entry: entry[0] is not socket.AF_INET)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))
