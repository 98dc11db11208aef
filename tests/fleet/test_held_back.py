"""The nodes that are held back."""

from __future__ import annotations

from controlplane.envoy_types import CLUSTER, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.fleet import Fleet, NodeState
from controlplane.fleet.held_back import lost_in_words
from controlplane.xds.events import HeldBack, StreamClosed
from tests.fleet.clients import connect

A, B = HeldBack(1, ((ROUTES, "a"),)), HeldBack(1, ((ROUTES, "b"),), unknown=True)


def test_a_node_is_held_back_until_each_of_its_streams_is_released() -> None:
    fleet = Fleet()
    fleet.publish(1)
    connect(fleet, 1)
    connect(fleet, 2)
    fleet.apply(1, A, 101.0)
    assert fleet.held_back.find("edge-1") == A
    fleet.apply(2, B, 101.0)
    assert fleet.held_back.all() == {"edge-1": HeldBack(1, ((ROUTES, "a"), (ROUTES, "b")), unknown=True)}
    assert fleet.state_of(fleet.nodes["edge-1"]) is NodeState.BEHIND
    fleet.apply(1, HeldBack(0), 102.0)
    assert fleet.held_back.find("edge-1") == B
    fleet.apply(2, StreamClosed(), 103.0)
    assert fleet.held_back.all() == {}
    assert fleet.held_back.find("nobody") is None


def test_what_is_lost_in_words() -> None:
    listener, scope = (LISTENER, "0.0.0.0:80"), (SCOPED_ROUTES, "edge/a")
    models = ((ROUTES, "a"), (CLUSTER, "b/blue"))
    assert lost_in_words(HeldBack(1, (listener, *models, scope))) == "listener 0.0.0.0:80 and model a and cluster b/blue"
    assert lost_in_words(HeldBack(1, ((CLUSTER, "a/v1"), (ROUTES, "a"), (ROUTES, "b")))) == "models a, b"
    assert lost_in_words(HeldBack(1, (scope,))) == "key edge/a"
    assert lost_in_words(HeldBack(1, models, 50)) == "model a and cluster b/blue and 50 more resources"
    assert lost_in_words(HeldBack(1, unknown=True)) == "anything: what is held is not known"
    some = HeldBack(1, models[:1], unknown=True)
    assert lost_in_words(some) == "model a and anything else: not all that is held is known"
