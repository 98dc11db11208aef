"""Identities: one client does not stand for several nodes."""

from __future__ import annotations

import random

import pytest

from controlplane.domain import Gateway
from controlplane.fleet import Fleet, RememberedNode
from controlplane.fleet.membership import remembered
from controlplane.snapshot import Audience
from controlplane.xds.events import AudienceAssigned, Authenticated, Held, Identified, StreamClosed, StreamOpened

EDGE = Gateway("edge", 80, absent_after=10.0, expected_nodes=3)


def connect(fleet: Fleet, stream: int, node_id: str, identity: str, *, shared: bool = False, held: int = 1) -> None:
    fleet.apply(stream, StreamOpened("10.0.0.1:1", "delta"), 90)
    if identity:
        fleet.apply(stream, Authenticated(identity, shared), 90)
    fleet.apply(stream, Identified(node_id, "edge"), 90)
    fleet.apply(stream, AudienceAssigned(Audience(("edge",))), 90)
    if held:
        fleet.apply(stream, Held(held), 100)


def fleet_of() -> Fleet:
    fleet = Fleet()
    fleet.publish(1)
    fleet.members.set_gateways({"edge": EDGE})
    return fleet


def counted(fleet: Fleet) -> int:
    return fleet.members.expected(fleet.audiences)[0].counted


def test_a_client_that_claims_three_node_ids_is_not_three_expected_nodes() -> None:
    fleet = fleet_of()
    for stream, node_id in enumerate(("edge-1", "edge-2", "edge-3")):
        connect(fleet, stream, node_id, "spiffe://td/liar")
    assert (counted(fleet), fleet.is_done(1)) == (1, False)
    connect(fleet, 4, "edge-4", "spiffe://td/edge-4")
    connect(fleet, 5, "edge-5", "spiffe://td/edge-5")
    assert (counted(fleet), fleet.is_done(1)) == (3, True)
    fleet.apply(5, StreamClosed(), 101)
    assert counted(fleet) == 3  # gone, and not released yet
    fleet.members.release(200)
    assert counted(fleet) == 2


@pytest.mark.parametrize(("identity", "shared"), [("", False), ("spiffe://td/pods", True)])
def test_nodes_without_an_identity_of_their_own_are_counted_by_id(identity: str, shared: bool) -> None:
    fleet = fleet_of()
    for stream, node_id in enumerate(("edge-1", "edge-2", "edge-3")):
        connect(fleet, stream, node_id, identity, shared=shared)
    assert (counted(fleet), fleet.is_done(1)) == (3, True)
    assert fleet.nodes["edge-1"].identity == identity


def test_an_identity_is_remembered_over_a_restart() -> None:
    fleet = fleet_of()
    for stream, node_id in enumerate(("edge-1", "edge-2")):
        connect(fleet, stream, node_id, "spiffe://td/liar")
    stored: list[RememberedNode] = [remembered(node, 200) for node in fleet.nodes.values()]
    restarted = fleet_of()
    restarted.members.restore(stored, 300)
    assert counted(restarted) == 1


def test_random_histories_count_as_if_all_nodes_were_counted_anew() -> None:
    choose = random.Random(7)
    fleet = fleet_of()
    streams: dict[int, str] = {}
    for step in range(2_000):
        now = 100.0 + step
        if streams and choose.random() < 0.5:
            stream = choose.choice(list(streams))
            fleet.apply(stream, StreamClosed(), now)
            del streams[stream]
        else:
            node_id = f"node-{choose.randrange(6)}"
            connect(
                fleet,
                step,
                node_id,
                choose.choice(("", "a", "b", "c")),
                shared=choose.random() < 0.2,
                held=choose.choice((0, 1)),
            )
            streams[step] = node_id
        if choose.random() < 0.1:
            fleet.members.release(now)
        nodes = [n for n in fleet.nodes.values() if n.connected or n.known]
        assert counted(fleet) == len({(n.own_identity, "" if n.own_identity else n.id) for n in nodes if "edge" in n.gateways})
