"""The versions that are probed, and the addresses that may be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain import Endpoint, Model, Protocol, UpstreamTls, Version
from controlplane.domain.state import State
from controlplane.probe import Target, is_known, replaced, rising
from controlplane.probe.targets import forbidden
from tests import pki

BLUE, GREEN = (Version(v, (Endpoint("10.0.0.1", port),)) for v, port in (("blue", 80), ("green", 81)))
BEFORE = Model("iris", ("edge",), (BLUE, GREEN), {"blue": 10_000})
NAME = BEFORE.resource_name


def names(targets: list[Target]) -> list[str]:
    return [f"{t.model}/{t.version.name}" for t in targets]


def test_only_versions_whose_share_rises_from_0() -> None:
    half = replace(BEFORE, split={"blue": 5_000, "green": 5_000})
    assert names(rising({NAME: (BEFORE, half)}, State())) == ["iris/green"]
    assert names(rising({NAME: (half, replace(half, split={"blue": 1_000, "green": 9_000}))}, State())) == []
    assert names(rising({NAME: (BEFORE, None)}, State())) == []


def test_a_new_model_is_not_probed_unless_it_is_restored() -> None:
    assert rising({NAME: (None, BEFORE)}, State()) == []
    assert names(rising({NAME: (None, BEFORE)}, State(), restored=True)) == ["iris/blue"]


def test_a_change_that_is_not_made_probes_only_endpoints_in_desired_state() -> None:
    moved = replace(BEFORE, split={"green": 10_000})
    other = replace(moved, versions=(BLUE, replace(GREEN, endpoints=(Endpoint("10.0.0.9", 22),))))
    assert names(rising({NAME: (BEFORE, moved)}, State(), made=False)) == ["iris/green"]
    assert rising({NAME: (BEFORE, other)}, State(), made=False) == []
    assert names(rising({NAME: (BEFORE, other)}, State())) == ["iris/green"]
    assert rising({NAME: (None, BEFORE)}, State(), restored=True, made=False) == []


def test_authorities_of_a_secret() -> None:
    authority = pki.Authority()
    green = replace(GREEN, tls=UpstreamTls("green.test", ca_certificates="ca"))
    after = replace(BEFORE, versions=(BLUE, green), split={"green": 10_000})
    (target,) = rising({NAME: (BEFORE, after)}, State({}, {}, {"ca": authority.secret()}))
    assert target.authorities == authority.certificate


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.0.0.1", ""),
        ("8.8.8.8", ""),
        ("2001:db8::1", ""),
        ("127.0.0.1", "a loopback address"),
        ("127.8.8.8", "a loopback address"),
        ("::1", "a loopback address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("0.0.0.0", "a loopback address"),
        ("::", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("::ffff:169.254.169.254", "a link-local address"),
        ("fe80::1%eth0", "a link-local address"),
        ("224.0.0.1", "a multicast or reserved address"),
        ("255.255.255.255", "a multicast or reserved address"),
    ],
)
def test_addresses_that_may_not_be_probed(address: str, reason: str) -> None:
    assert forbidden(address, local=False) == reason
    if "multicast" not in reason:
        assert forbidden(address, local=True) == ""


def test_another_protocol_needs_a_handshake_and_a_dry_run_probes_only_what_it_knows() -> None:
    before = State({}, {"iris": BEFORE})
    for blue, handshake, known in (
        (replace(BLUE, protocol=Protocol.GRPC), True, True),
        (replace(BLUE, host="iris.example"), False, True),
        (replace(BLUE, endpoints=(*BLUE.endpoints, Endpoint("10.0.0.9", 22))), False, False),
    ):
        after = State({}, {"iris": replace(BEFORE, versions=(blue, GREEN))})
        (probed,) = replaced([("iris", "blue")], before, after)
        assert (probed.version, probed.handshake, is_known(probed, before)) == (blue, handshake, known)
