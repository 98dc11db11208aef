"""The use of one connection, charged to the connection, its client and all clients."""

from __future__ import annotations

import asyncio

from controlplane.http2.accounts import Accounts, ClientLimits
from controlplane.http2.allowance import Rate
from controlplane.http2.charges import Charges


class Closed:
    """Records why it was closed."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def calm(self, reason: str) -> None:
        self.reasons.append(reason)


def charges(limits: ClientLimits) -> tuple[Charges, Closed, Accounts]:
    connection, accounts = Closed(), Accounts(limits)
    return Charges(accounts, "192.0.2.1:1", connection), connection, accounts


async def test_time_is_charged_to_the_connection_its_client_and_all() -> None:
    one, connection, accounts = charges(ClientLimits(connection_cpu=Rate(1.0, 0.1), excess_cpu=Rate(2.0, 0.1)))
    now = asyncio.get_running_loop().time()
    one.spend(now)
    assert not one.heavy(now)
    assert not one.must_wait(now)
    one.spend(now - 0.9)
    assert one.heavy(now)
    assert 0.9 <= one.account.cpu.used(now) < 1.0
    assert 0.9 <= accounts.cpu.used(now) < 1.0
    assert connection.reasons == []
    one.spend(now - 1.5)
    assert one.account.excess.used(now) >= 1.5
    assert connection.reasons == []
    one.spend(now - 1.5)
    assert connection.reasons == ["too much CPU"]


async def test_other_connections_wait_when_their_client_has_used_its_share() -> None:
    one, _, accounts = charges(ClientLimits(cpu=Rate(0.1, 0.1)))
    same, other = (Charges(accounts, address, Closed()) for address in ("192.0.2.1:2", "192.0.2.2:1"))
    now = asyncio.get_running_loop().time()
    one.spend(now - 0.2)
    assert same.must_wait(now)
    assert not same.heavy(now)
    assert not other.must_wait(now)


async def test_too_many_frames_or_streams_end_the_connection() -> None:
    one, connection, _ = charges(ClientLimits(frames=Rate(10, 1), connection_streams=Rate(3, 1), streams=Rate(100, 1)))
    one.spend(0.0, 5)
    one.spend(0.0, 4)
    for _ in range(3):
        one.stream_opened()
    await asyncio.sleep(0)
    assert "too many frames" not in connection.reasons
    assert "too many new streams" not in connection.reasons
    one.spend(0.0, 5)
    assert connection.reasons[-1] != "too many new streams"
    assert "too many frames" in connection.reasons
    one.stream_opened()
    await asyncio.sleep(0)
    assert connection.reasons[-1] == "too many new streams"


async def test_held_bytes_end_the_connection_that_brings_more_and_are_given_back() -> None:
    one, connection, accounts = charges(ClientLimits(held_bytes=100))
    other_connection = Closed()
    other = Charges(accounts, "192.0.2.1:2", other_connection)
    one.hold(60)
    one.keep(30)
    one.keep(40)
    await asyncio.sleep(0)
    assert accounts.held == 100
    other.hold(1)
    await asyncio.sleep(0)
    assert (connection.reasons, other_connection.reasons) == ([], ["too many held bytes"])
    other.hold(-1)
    one.hold(-60)
    one.close()
    other.close()
    assert accounts.held == accounts.connections == 0


async def test_a_connection_that_is_gone_is_not_closed_again() -> None:
    one, connection, _ = charges(ClientLimits(held_bytes=10))
    one.hold(20)
    del connection
    await asyncio.sleep(0)


async def test_a_verified_identity_has_its_own_account_from_its_first_stream_on() -> None:
    accounts = Accounts(ClientLimits(cpu=Rate(0.1, 0.1)))
    connections = [Closed() for _ in range(3)]
    alice, same, bob = (
        Charges(accounts, "192.0.2.1:1", connection, identity)
        for connection, identity in zip(connections, ("alice", "alice", "bob"), strict=True)
    )
    alice.keep(7)
    alice.hold(3)
    address = alice.account
    assert same.account is bob.account is address
    for one in (alice, same, bob):
        one.stream_opened()
        one.stream_opened()
    assert alice.account is same.account
    assert alice.account is not bob.account
    assert (alice.account.connections, bob.account.connections, address.connections, accounts.connections) == (2, 1, 0, 3)
    assert (alice.account.held, address.held) == (10, 0)
    now = asyncio.get_running_loop().time()
    alice.spend(now - 1.0)
    assert same.must_wait(now)
    assert bob.account.cpu.full(now)
