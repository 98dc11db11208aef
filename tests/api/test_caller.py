"""The address of a call's client."""

from __future__ import annotations

import pytest

from controlplane.api.caller import caller


class Context:
    """The part of a call's context that names the client."""

    def __init__(self, peer: str | None) -> None:
        self._peer = peer

    def peer(self) -> str | None:
        return self._peer


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1:5000"),
        ("ipv6:%5B2001:db8::1%5D:5000", "[2001:db8::1]:5000"),
        ("unix:/run/turnout.sock", "unix:/run/turnout.sock"),
        (None, ""),
    ],
)
def test_address(peer: str | None, address: str) -> None:
    assert caller(Context(peer)) == address
