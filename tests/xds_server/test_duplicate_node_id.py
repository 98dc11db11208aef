"""Two Envoys that use the same node id."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from controlplane.xds_server.duplicate_node_id import host_of, other_host, warning


@dataclass
class Stream:
    """A stream of a client at this host; "" when it is not an Envoy's over ADS."""

    host: str


@pytest.mark.parametrize(
    ("address", "host"), [("10.0.0.1:5000", "10.0.0.1"), ("[::1]:5000", "[::1]"), ("unix:/run/x.sock:", "unix:/run/x.sock")]
)
def test_the_host_of_an_address_has_no_port(address: str, host: str) -> None:
    assert host_of(address) == host


@pytest.mark.parametrize(
    ("hosts", "other"),
    [
        (["10.0.0.1"], ""),
        # It has come back from the same address.
        (["10.0.0.1", "10.0.0.1"], ""),
        (["10.0.0.1", "10.0.0.2"], "10.0.0.2"),
        (["10.0.0.1", "", "10.0.0.2", "10.0.0.3"], "10.0.0.2"),
        # Streams of one type do not count: a client may open them from anywhere.
        (["10.0.0.1", ""], ""),
        (["", "10.0.0.2"], ""),
    ],
)
def test_another_host_counts_when_both_streams_are_an_envoys_over_ads(hosts: list[str], other: str) -> None:
    streams = [Stream(host) for host in hosts]
    assert other_host(streams[0], streams) == other


def test_the_warning_names_both_addresses_and_the_remedy() -> None:
    assert warning("a", "b") == "two Envoys use this node id, at a and b, and can't be told apart: give each its own id"
