"""Conversion of nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.convert.node import node_id_of, node_name, node_to_proto, summary_of
from controlplane.errors import Code, Error
from controlplane.fleet import Fleet
from controlplane.generated.turnout.v1 import node_pb2
from controlplane.snapshot import Audience
from controlplane.xds.events import AudienceAssigned, Held, Identified, Refused, StreamClosed, StreamOpened

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


def fleet_of(*nodes: str) -> Fleet:
    """Return a fleet at revision 2 whose nodes hold revision 1 on one stream each, numbered from 0."""
    fleet = Fleet()
    fleet.publish(2)
    for stream, node in enumerate(nodes):
        fleet.apply(stream, StreamOpened(f"10.0.0.{stream}:1", "delta"), 90)
        fleet.apply(stream, Identified(node, "edge", {"tier": "canary"}, "envoy 1.40.0"), 91)
        fleet.apply(stream, Held(1), 100)
    return fleet


@given(st.text(min_size=1))
def test_a_name_is_one_segment_and_contains_the_id(node_id: str) -> None:
    name = node_name(node_id)
    assert name.count("/") == 1
    if node_id.isascii():
        assert node_id_of(name) == node_id


@pytest.mark.parametrize("name", ["", "edge-1", "models/iris", "nodes/a/b"])
def test_a_name_of_something_else_is_refused(name: str) -> None:
    with pytest.raises(Error) as caught:
        node_id_of(name)
    assert (caught.value.code, caught.value.violations[0].field) == (Code.INVALID_ARGUMENT, "name")


def test_a_connected_node() -> None:
    fleet = fleet_of("edge/1")
    fleet.apply(0, AudienceAssigned(Audience(("edge",), models=frozenset({"wine", "iris"})), "a note"), 101)
    fleet.apply(0, Refused(LISTENER, ("public",), "cannot bind", 2), 102)
    message = node_to_proto(fleet, fleet.nodes["edge/1"])
    assert (message.name, message.id, message.cluster, message.user_agent) == (
        "nodes/edge%2F1",
        "edge/1",
        "edge",
        "envoy 1.40.0",
    )
    assert (list(message.gateways), list(message.models), message.note) == (["gateways/edge"], ["iris", "wine"], "a note")
    assert (message.state, message.held_revision, message.target_revision) == (node_pb2.NODE_STATE_REFUSING, 1, 2)
    assert (list(message.variants), message.streams, message.peer) == (["delta"], 1, "10.0.0.0:1")
    assert (message.connect_time.seconds, message.last_seen_time.seconds) == (90, 102)
    (refusal,) = message.refusals
    assert (refusal.type, list(refusal.resources), refusal.message) == ("Listener", ["public"], "cannot bind")
    assert (refusal.revision, refusal.time.seconds) == (2, 102)


def test_a_node_that_is_gone_has_no_time_of_connection() -> None:
    fleet = fleet_of("edge-1")
    fleet.apply(0, StreamClosed(), 103)
    message = node_to_proto(fleet, fleet.nodes["edge-1"])
    assert (message.state, message.streams, message.HasField("connect_time")) == (node_pb2.NODE_STATE_GONE, 0, False)


def test_the_summary_counts_the_nodes_by_state() -> None:
    fleet = fleet_of("a", "b", "c", "d")
    fleet.apply(0, Held(2), 101)
    fleet.apply(1, Refused(LISTENER, ("public",), "cannot bind", 2), 102)
    fleet.apply(2, StreamClosed(), 103)
    summary = summary_of(fleet)
    assert (summary.revision, summary.synced, summary.behind, summary.refusing, summary.gone) == (2, 1, 1, 1, 1)
