"""The client of a connection."""

from __future__ import annotations

import pytest

from controlplane.http2.peer import Peer, address


def test_addresses_are_written_in_the_usual_form() -> None:
    assert address(("127.0.0.1", 5000)) == "127.0.0.1:5000"
    assert address(("::1", 5000, 0, 0)) == "[::1]:5000"
    assert address(("::ffff:10.0.0.1", 5000, 0, 0)) == "10.0.0.1:5000"
    assert address("") == ""


def test_a_peer_is_immutable() -> None:
    peer = Peer("127.0.0.1:5000")
    assert peer.identity is None
    with pytest.raises(AttributeError):
        peer.address = "other"  # type: ignore[misc]
