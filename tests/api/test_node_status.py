"""What one node holds, asked over the operator API about clients that behave, don't answer, or refuse."""

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

OFF = ("sent", "waiting", "refused", "not_asked", "absent")


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with serving(tmp_path) as made:
        yield made


async def settled(plane: Plane, node: str, **states: int) -> Any:
    """The status, once so many resources are in each of these states, and none in another but SYNCED."""
    async with asyncio.timeout(20):
        while True:
            try:
                status = await plane.standing(node)
            except grpc.aio.AioRpcError:  # it is not known yet
                status = node_pb2.NodeStatus()
            counts = {
                s: sum(getattr(t, s) for t in status.types) for s in ("sent", "waiting", "refused", "not_asked", "absent")
            }
            if status.types and {s: n for s, n in counts.items() if n} == states:
                return status
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_all_in_sync(plane: Plane, variant: str) -> None:
    async with plane.client("edge-1", variant):
        status = await settled(plane, "edge-1")
        assert (status.node.name, status.node.state) == ("nodes/edge-1", node_pb2.NODE_STATE_SYNCED)
        assert {t.type: t.synced for t in status.types} == {
            "Cluster": 2,
            "ClusterLoadAssignment": 2,
            "Secret": 1,
            "Listener": 1,
            "ScopedRouteConfiguration": 5,
            "RouteConfiguration": 1,
        }
        assert all(t.HasField("newest_time") for t in status.types)
        assert not status.resources
        every = await plane.standing("edge-1", include_synced=True, max_resources=4)
        assert (len(every.resources), every.omitted) == (4, 8)
        for resource in every.resources:
            assert resource.state == node_pb2.RESOURCE_STATE_SYNCED
            assert resource.held_version == resource.target_version != ""
            assert not resource.diff


async def test_what_is_refused_comes_with_its_words_and_a_diff(plane: Plane) -> None:
    words = ""
    async with plane.client("edge-1", refuse=lambda t, names: words if t == ROUTES else "") as c:
        held = c.held[ROUTES]["iris"][0] if await settled(plane, "edge-1") else ""
        words = "no such thing as green"
        await plane.switch("green")
        (route,) = (await settled(plane, "edge-1", refused=1)).resources
        assert (route.type, route.name, route.state) == ("RouteConfiguration", "iris", node_pb2.RESOURCE_STATE_REFUSED)
        assert (route.held_version, route.refusal.version) == (held, route.target_version)
        assert (route.refusal.message, route.refusal.revision) == (words, 2)
        assert route.diff[:2] == [f"--- holds {held}", f"+++ should hold {route.target_version}"]
        assert any(line.startswith("-") and "iris/blue" in line for line in route.diff[2:])
        assert any(line.startswith("+") and "iris/green" in line for line in route.diff[2:])
        assert not (await plane.standing("edge-1", exclude_diffs=True)).resources[0].diff


async def test_what_is_not_answered(plane: Plane) -> None:
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
        assert secret.diff_note == "its content is secret"
        assert "[a private key]" in secret.refusal.message
        assert c.nacks == 1
        answer = str(status) + str(await plane.standing("edge-1", include_synced=True))
        assert not any(mark in answer.replace("\\n", "") for mark in pki.marks(EDGE.key))


async def test_what_is_not_asked_for_follows_a_refused_listener(plane: Plane) -> None:
    async with plane.client("edge-1", refuse=lambda t, names: "in use" if t == LISTENER else ""):
        status = await settled(plane, "edge-1", refused=1, not_asked=7)
        first, *others = status.resources
        assert (first.type, first.held_version, first.HasField("take_time")) == ("Listener", "", False)
        assert first.diff[0] == "--- holds nothing"
        assert {(r.type, r.state) for r in others} == {
            (t, node_pb2.RESOURCE_STATE_NOT_ASKED) for t in ("Secret", "ScopedRouteConfiguration", "RouteConfiguration")
        }


async def test_a_node_that_is_gone_and_one_that_never_was(plane: Plane) -> None:
    async with plane.client("edge-1"):
        await settled(plane, "edge-1")
    async with asyncio.timeout(20):
        while (status := await plane.standing("edge-1")).node.state != node_pb2.NODE_STATE_GONE:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (list(status.types), list(status.resources)) == ([], [])
    for name, code in (("nobody", grpc.StatusCode.NOT_FOUND), ("a/b", grpc.StatusCode.INVALID_ARGUMENT)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await plane.standing(name)
        assert read_refusal(caught.value).code is code
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plane.standing("edge-1", max_resources=-1)
    assert read_refusal(caught.value).fields == ["max_resources"]


async def test_the_list_has_an_end_and_what_is_refused_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Resource.of(CLUSTER, "c", b"")
    statuses = [
        ResourceStatus(CLUSTER, f"c{i}", State.REFUSED if i == 9 else State.WAITING, None, old, None) for i in range(10)
    ]
    monkeypatch.setattr(node_status, "MOST_DIFFS", 3)
    made = await node_status.to_proto(node_pb2.Node(), statuses, 5, include_synced=False, diffs=True)
    assert [r.name for r in made.resources] == ["c9", "c0", "c1", "c2", "c3"]
    assert made.omitted == 5
    assert [bool(r.diff) for r in made.resources] == [True, True, True, False, False]
    assert made.resources[4].diff_note == "only the first 3 are compared"
    assert (made.types[0].refused, made.types[0].waiting) == (1, 9)
