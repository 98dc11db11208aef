"""The use of one connection, charged to the connection, to its client, and to all clients together."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol
from weakref import proxy

from controlplane.http2.accounts import LIGHT_USE, Account, Accounts, client_key, identity_key
from controlplane.http2.allowance import Allowance


class Connection(Protocol):
    """A connection that uses something."""

    def calm(self, reason: str) -> None:
        """Close with ENHANCE_YOUR_CALM, because the connection used too much of something."""


class Charges:
    """The charges of one connection. One that has used up what it may is closed."""

    __slots__ = ("_accounts", "_connection", "_cpu", "_frames", "_identity", "_kept", "_loop", "_streams", "account", "held")

    def __init__(self, accounts: Accounts, address: str, connection: Connection, identity: str | None = None) -> None:
        """Count a new connection of the client at `address`, like `127.0.0.1:5000`; from its first stream on, `identity`."""
        self._accounts = accounts
        # Weak, so that a closed connection is freed by reference count and not by the cycle collector.
        self._connection: Connection = proxy(connection)
        self._loop = asyncio.get_running_loop()
        # The connections of the same client share it.
        self.account: Account = accounts.open(client_key(address))
        # A verified one that has not opened a stream yet.
        self._identity = identity
        limits = accounts.limits
        self._cpu, self._frames = Allowance(limits.connection_cpu), Allowance(limits.frames)
        self._streams = Allowance(limits.connection_streams)
        # Bytes of unfinished messages, and received bytes that wait.
        self.held = self._kept = 0

    def full(self) -> bool:
        """Return True if there are too many connections, of this client or of all."""
        return self._accounts.full(self.account)

    def must_wait(self, now: float) -> bool:
        """Return True if the connection must wait for its turn: it is heavy, or its client has used its share, or all have."""
        return self._cpu.used(now) > LIGHT_USE or self._accounts.busy(self.account, now)

    def heavy(self, now: float) -> bool:
        """Return True if the connection has used much lately."""
        return self._cpu.used(now) > LIGHT_USE

    def spend(self, start: float, frames: int = 0) -> None:
        """Charge the time since `start`, and so many frames."""
        now = self._loop.time()
        if frames:
            self._frames.spend(frames, now)
            if self._frames.exceeded(now):
                self._connection.calm("too many frames")
        if now > start:
            account, seconds = self.account, now - start
            self._accounts.spend(account, seconds, now)
            self._cpu.spend(seconds, now)
            if self._cpu.exceeded(now):
                account.excess.spend(seconds, now)
                if account.excess.exceeded(now):
                    self._connection.calm("too much CPU")

    def keep(self, count: int) -> None:
        """Count `count` received bytes that wait, and none of those before."""
        if self._kept != count:
            self._accounts.hold(self.account, count - self._kept)
            self._kept = count

    def hold(self, count: int) -> None:
        """Count bytes of unfinished messages; negative: they are gone."""
        self._accounts.hold(self.account, count)
        self.held += count
        if count > 0 and self._accounts.holds_too_much(self.account):
            self._loop.call_soon(self._calm, "too many held bytes")

    def stream_opened(self) -> None:
        """Count a new stream. With the first one, a client that has a verified identity gets its own account."""
        if self._identity is not None:
            self._move(identity_key(self._identity))
            self._identity = None
        now = self._loop.time()
        self._streams.spend(1, now)
        self.account.streams.spend(1, now)
        if self._streams.exceeded(now) or self.account.streams.exceeded(now):
            self._loop.call_soon(self._calm, "too many new streams")

    def close(self) -> None:
        """Count the connection no more."""
        self._accounts.hold(self.account, -self._kept)
        self._accounts.close(self.account, self._loop.time())

    def _move(self, key: str) -> None:
        """Count the connection, and what it holds, for another client."""
        before, held = self.account, self._kept + self.held
        self._accounts.hold(before, -held)
        self._accounts.close(before, self._loop.time())
        self.account = self._accounts.open(key)
        self._accounts.hold(self.account, held)
        if self.full():
            self._loop.call_soon(self._calm, "too many connections")

    def _calm(self, reason: str) -> None:
        with contextlib.suppress(ReferenceError):  # it is gone
            self._connection.calm(reason)
