"""The accounts of client addresses."""

from __future__ import annotations

import pytest

from controlplane.http2.accounts import Accounts, ClientLimits, client_key
from controlplane.http2.allowance import Rate


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("127.0.0.1:5000", "127.0.0.1"),
        ("[2001:db8:1:2:3::4]:5000", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:ffff::]:1", "2001:db8:1:2::/64"),
        ("[fe80::1%eth0]:1", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_client_is_an_address_or_a_network_of_64_bits(address: str, key: str) -> None:
    assert client_key(address) == key


def test_reconnecting_does_not_renew_a_budget() -> None:
    accounts = Accounts(ClientLimits(cpu=Rate(0.1, 0.1)))
    first = accounts.open("192.0.2.1")
    first.cpu.spend(0.2, 100.0)
    accounts.close(first, 100.0)
    again = accounts.open("192.0.2.1")
    assert accounts.busy(again, 100.0)
    assert not accounts.busy(accounts.open("192.0.2.2"), 100.0)
    accounts.close(again, 100.0)
    accounts.sweep(103.0)
    assert not accounts.busy(accounts.open("192.0.2.1"), 103.0)


def test_the_bounds_of_one_address_and_of_all() -> None:
    accounts = Accounts(ClientLimits(connections=2, total_connections=3, held_bytes=10, total_held_bytes=15))
    first, second = (accounts.open("192.0.2.1") for _ in range(2))
    assert first is second
    assert not accounts.full(first)
    accounts.open("192.0.2.1")
    assert accounts.full(first)
    other = accounts.open("192.0.2.2")
    assert accounts.full(other)
    accounts.hold(first, 10)
    assert not accounts.holds_too_much(first)
    accounts.hold(other, 6)
    assert accounts.holds_too_much(other)
    accounts.hold(other, -6)
    assert not accounts.holds_too_much(other)


def test_all_addresses_together_have_a_budget() -> None:
    accounts = Accounts(ClientLimits(total_cpu=Rate(0.5, 0.25)))
    accounts.cpu.spend(0.6, 10.0)
    assert accounts.busy(accounts.open("192.0.2.9"), 10.0)
