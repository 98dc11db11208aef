"""Short names of enum values."""

from __future__ import annotations

from controlplane.cli.enums import short, short_values


def test_short_names_drop_the_prefix_and_the_unset_value() -> None:
    values = [("TLS_VERSION_UNSPECIFIED", 0), ("TLS_VERSION_1_2", 1), ("TLS_VERSION_1_3", 2)]
    assert short_values("TlsVersion", values) == {"1.2": 1, "1.3": 2}
    assert short_values("Protocol", [("PROTOCOL_GRPC", 3)]) == {"grpc": 3}
    assert (short("1_2"), short("GRPC")) == ("1.2", "grpc")
