"""Accounts of what the clients of each address use: CPU, held bytes, connections and new streams. Reconnecting renews nothing.

One address may be a whole fleet behind a gateway, so an address that uses much is not refused. Its connections wait for
their turn (`fair_queue.py`). Only two things end a connection with ENHANCE_YOUR_CALM: work far beyond what a connection of a
proxy causes, and bytes that are held for it while there is no room.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from controlplane.http2.allowance import Allowance, Rate

# A connection that has used no more than this, in seconds of CPU, has its turn before others.
LIGHT_USE = 0.003


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Bounds for the connections of one client address, and of all. CPU is in seconds of the event loop."""

    # What an address, and all of them, may use before their connections wait for their turn.
    cpu: Rate = Rate(2.0, 0.5)
    total_cpu: Rate = Rate(4.0, 0.6)
    # A connection that uses more works on the excess of its address, and is closed once that is used up.
    connection_cpu: Rate = Rate(0.05, 0.05)
    excess_cpu: Rate = Rate(5.0, 0.1)
    # Frames of a connection other than DATA with bytes.
    frames: Rate = Rate(20_000, 2_000)
    # New streams of a connection, and of an address. A fleet of 5,000 proxies opens up to eight each.
    connection_streams: Rate = Rate(3_000, 300)
    streams: Rate = Rate(60_000, 2_000)
    # Bytes of unfinished messages, and of input that waits.
    held_bytes: int = 64 * 1024 * 1024
    total_held_bytes: int = 160 * 1024 * 1024
    # Open connections of an address, and of all.
    connections: int = 15_000
    total_connections: int = 30_000


class Account:
    """The use of the server by the clients of one address."""

    __slots__ = ("connections", "cpu", "excess", "held", "key", "streams")

    def __init__(self, key: str, limits: ClientLimits) -> None:
        self.key = key
        self.cpu, self.excess, self.streams = Allowance(limits.cpu), Allowance(limits.excess_cpu), Allowance(limits.streams)
        self.connections = 0
        self.held = 0

    def unused(self, now: float) -> bool:
        """Return True if a new account would be the same."""
        return not self.connections and self.cpu.full(now) and self.excess.full(now) and self.streams.full(now)


class Accounts:
    """The accounts of all addresses that have connections or have used something lately."""

    def __init__(self, limits: ClientLimits) -> None:
        self.limits = limits
        # The account of all clients together.
        self.cpu = Allowance(limits.total_cpu)
        self.connections = 0
        self.held = 0
        self._by_key: dict[str, Account] = {}

    def open(self, key: str) -> Account:
        """Count a new connection of a client (`client_key`, `identity_key`), and return the client's account."""
        account = self.of(key)
        account.connections += 1
        self.connections += 1
        return account

    def of(self, key: str) -> Account:
        """Return the account of a client, without counting a connection."""
        account = self._by_key.get(key)
        if account is None:
            account = self._by_key[key] = Account(key, self.limits)
        return account

    def spend(self, account: Account, seconds: float, now: float) -> None:
        """Charge CPU to a client, and to all together."""
        account.cpu.spend(seconds, now)
        self.cpu.spend(seconds, now)

    def close(self, account: Account, now: float) -> None:
        """Count a connection no more. An account that has something to remember stays until `sweep`."""
        account.connections -= 1
        self.connections -= 1
        if account.unused(now):
            self._by_key.pop(account.key, None)

    def full(self, account: Account) -> bool:
        """Return True if there are more connections than allowed, of this address or of all."""
        return account.connections > self.limits.connections or self.connections > self.limits.total_connections

    def hold(self, account: Account, count: int) -> None:
        """Add bytes that are held for a client; negative: they are gone."""
        account.held += count
        self.held += count

    def holds_too_much(self, account: Account) -> bool:
        """Return True if more bytes are held than allowed, for this address or for all."""
        return account.held > self.limits.held_bytes or self.held > self.limits.total_held_bytes

    def busy(self, account: Account, now: float) -> bool:
        """Return True if the connections of this address must wait for their turn."""
        return account.cpu.exceeded(now) or self.cpu.exceeded(now)

    def sweep(self, now: float) -> None:
        """Forget the accounts that have nothing to remember."""
        for key in [key for key, account in self._by_key.items() if account.unused(now)]:
            del self._by_key[key]


def identity_key(identity: str) -> str:
    """Return the key of a client whose certificate is verified. It is no address."""
    return f"identity {identity}"


def client_key(address: str) -> str:
    """Return the part of a socket's address that names a client: an IPv4 address, or the /64 network of an IPv6 address."""
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    if ":" not in host:
        return host
    try:
        return str(ipaddress.ip_network((host, 64), strict=False))
    except ValueError:
        return host
