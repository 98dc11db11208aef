"""The status of nodes that ACK, don't answer, or refuse, over the operator API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.api import node_status
from controlplane.envoy_types import CLUSTER, LISTENER, ROUTES, SECRET
from controlplane.generated.turnout.v1 import node_pb2
from controlplane.snapshot import Resource
from controlplane.xds.status import ResourceStatus, State
from tests import pki
from tests.api.api import read_refusal
from tests.api.plane import EDGE, Plane, serving


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with serving(tmp_path) as plane:
        yield plane


async def settled(plane: Plane, node: str, **states: int) -> Any:
    """Return the status once the given numbers of resources are in these states, and all others are SYNCED."""
    async with asyncio.timeout(20):
        while True:
            try:
                status = await plane.node_status(node)
            except grpc.aio.AioRpcError:  # the server has not seen the node yet
                status = node_pb2.NodeStatus()
            counts = {
                s: sum(getattr(t, s) for t in status.types) for s in ("sent", "waiting", "refused", "not_asked", "absent")
            }
            if status.types and {s: n for s, n in counts.items() if n} == states:
                return status
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_the_status_of_a_synced_node(plane: Plane, variant: str) -> None:
    async with plane.client("edge-1", variant):
        status = await settled(plane, "edge-1")
        assert (status.node.name, status.node.state) == ("nodes/edge-1", node_pb2.NODE_STATE_SYNCED)
        assert {t.type: t.synced for t in status.types} == {
            "Cluster": 2,
            "ClusterLoadAssignment": 2,
            "Secret": 1,
            "Listener": 1,
            "ScopedRouteConfiguration": 9,
            "RouteConfiguration": 2,
        }
        assert all(t.HasField("newest_time") for t in status.types)
        assert not status.resources
        status = await plane.node_status("edge-1", include_synced=True, max_resources=4)
        assert (len(status.resources), status.omitted) == (4, 13)
        for resource in status.resources:
            assert resource.state == node_pb2.RESOURCE_STATE_SYNCED
            assert resource.held_version == resource.target_version != ""
            assert not resource.diff


async def test_a_refused_resource_has_the_clients_error_and_a_diff(plane: Plane) -> None:
    error = ""
    async with plane.client("edge-1", refuse=lambda t, names: error if t == ROUTES else "") as c:
        held = c.held[ROUTES]["iris"][0] if await settled(plane, "edge-1") else ""
        error = "no such thing as green"
        await plane.switch("green")
        (route,) = (await settled(plane, "edge-1", refused=1)).resources
        assert (route.type, route.name, route.state) == ("RouteConfiguration", "iris", node_pb2.RESOURCE_STATE_REFUSED)
        assert (route.held_version, route.refusal.version) == (held, route.target_version)
        assert (route.refusal.message, route.refusal.revision) == (error, 2)
        assert route.diff[:2] == [f"--- holds {held}", f"+++ should hold {route.target_version}"]
        assert any(line.startswith("-") and "iris/blue" in line for line in route.diff[2:])
        assert any(line.startswith("+") and "iris/green" in line for line in route.diff[2:])
        assert not (await plane.node_status("edge-1", exclude_diffs=True)).resources[0].diff


async def test_a_resource_without_an_answer_is_sent(plane: Plane) -> None:
    async with plane.client("edge-1") as c:
        await settled(plane, "edge-1")
        c.reading.clear()
        await plane.switch("green")
        (route,) = (await settled(plane, "edge-1", sent=1)).resources
        assert (route.state, route.sent_revision) == (node_pb2.RESOURCE_STATE_SENT, 2)
        assert route.take_time_exact
        assert route.diff


async def test_a_refused_secret_shows_no_key(plane: Plane) -> None:
    async with plane.client("edge-1", refuse=lambda t, names: EDGE.key if t == SECRET else "") as c:
        status = await settled(plane, "edge-1", refused=1)
        (secret,) = (r for r in status.resources if r.type == "Secret")
        assert secret.diff_note == "the content is secret"
        assert "[a private key]" in secret.refusal.message
        assert c.nacks == 1
        answer = str(status) + str(await plane.node_status("edge-1", include_synced=True))
        assert not any(mark in answer.replace("\\n", "") for mark in pki.marks(EDGE.key))


async def test_resources_behind_a_refused_listener_are_not_asked(plane: Plane) -> None:
    async with plane.client("edge-1", refuse=lambda t, names: "in use" if t == LISTENER else ""):
        status = await settled(plane, "edge-1", refused=1, not_asked=12)
        first, *others = status.resources
        assert (first.type, first.held_version, first.HasField("take_time")) == ("Listener", "", False)
        assert first.diff[0] == "--- holds nothing"
        assert {(r.type, r.state) for r in others} == {
            (t, node_pb2.RESOURCE_STATE_NOT_ASKED) for t in ("Secret", "ScopedRouteConfiguration", "RouteConfiguration")
        }


async def test_the_status_of_a_node_that_is_gone_or_does_not_exist(plane: Plane) -> None:
    async with plane.client("edge-1"):
        await settled(plane, "edge-1")
    async with asyncio.timeout(20):
        while (status := await plane.node_status("edge-1")).node.state != node_pb2.NODE_STATE_GONE:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (list(status.types), list(status.resources)) == ([], [])
    for name, code in (("nobody", grpc.StatusCode.NOT_FOUND), ("a/b", grpc.StatusCode.INVALID_ARGUMENT)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await plane.node_status(name)
        assert read_refusal(caught.value).code is code
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plane.node_status("edge-1", max_resources=-1)
    assert read_refusal(caught.value).fields == ["max_resources"]


async def test_the_list_is_limited_and_begins_with_refused_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Resource.of(CLUSTER, "c", b"")
    statuses = [
        ResourceStatus(CLUSTER, f"c{i}", State.REFUSED if i == 9 else State.WAITING, None, old, None) for i in range(10)
    ]
    monkeypatch.setattr(node_status, "MAX_DIFFS", 3)
    status = await node_status.to_proto(node_pb2.Node(), statuses, 5, include_synced=False, diffs=True)
    assert [r.name for r in status.resources] == ["c9", "c0", "c1", "c2", "c3"]
    assert status.omitted == 5
    assert [bool(r.diff) for r in status.resources] == [True, True, True, False, False]
    assert status.resources[4].diff_note == "only the first 3 resources are compared"
    assert (status.types[0].refused, status.types[0].waiting) == (1, 9)
