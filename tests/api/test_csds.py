"""Client status discovery (CSDS) of clients that ACK, don't answer, or refuse; and its limits, with a fleet in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.admin.v3 import config_dump_shared_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.status.v3 import csds_pb2
from envoy.type.matcher.v3 import node_pb2, regex_pb2, string_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from controlplane.aio.latest import Latest
from controlplane.api import csds
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES, SECRET
from controlplane.errors import Code, Error
from controlplane.fleet import Fleet
from controlplane.snapshot import Resource
from controlplane.xds.events import Identified, StreamClosed, StreamOpened
from controlplane.xds.status import ResourceStatus, State
from tests import pki
from tests.api.plane import EDGE, Plane, serving

VARIANTS = pytest.mark.parametrize("variant", ["delta", "sotw"])

CONFIG, CLIENT = csds_pb2.ConfigStatus, config_dump_shared_pb2.ClientResourceStatus


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with serving(tmp_path) as plane:
        yield plane


def routed_to(config: Any) -> set[str]:
    """Return the clusters of a RouteConfiguration in an Any."""
    assert config.type_url == ROUTES
    routes = route_pb2.RouteConfiguration.FromString(config.value)
    actions = [r.route for host in routes.virtual_hosts for r in host.routes]
    return {n for route in actions for n in (route.cluster, *(w.name for w in route.weighted_clusters.clusters)) if n}


def all_synced(resources: dict[tuple[str, str], Any]) -> bool:
    return (ROUTES, "iris") in resources and all(c.config_status == CONFIG.SYNCED for c in resources.values())


@VARIANTS
async def test_a_node_that_holds_everything(plane: Plane, variant: str) -> None:
    before = time.time()
    async with plane.client("edge-1", variant) as c:
        resources = await plane.until("edge-1", all_synced)
        assert set(resources) == {(t, n) for t, held in c.held.items() for n in held}
        assert {t for t, _ in resources} == {CLUSTER, ENDPOINTS, SECRET, LISTENER, SCOPED_ROUTES, ROUTES}
        for (type_url, name), config in resources.items():
            assert config.client_status == CLIENT.ACKED
            assert before - 1 < config.last_updated.ToMicroseconds() / 1e6 < time.time() + 1
            assert not config.HasField("error_state")
            if variant == "delta":
                assert config.version_info == c.held[type_url][name][0]
            if type_url != SECRET:
                assert (config.xds_config.type_url, config.xds_config.value) == (type_url, c.body(type_url, name))
        assert routed_to(resources[ROUTES, "iris"].xds_config) == {"iris/blue"}
        without_contents = await plane.of("edge-1", exclude_resource_contents=True)
        assert without_contents.keys() == resources.keys()
        assert not any(config.HasField("xds_config") for config in without_contents.values())


@VARIANTS
async def test_a_node_that_does_not_answer_is_stale(plane: Plane, variant: str) -> None:
    async with plane.client("edge-1", variant) as c:
        held = (await plane.until("edge-1", all_synced))[ROUTES, "iris"]
        c.reading.clear()
        await plane.switch("green")
        resources = await plane.until("edge-1", lambda resources: not all_synced(resources))
        config = resources.pop((ROUTES, "iris"))
        assert all_synced({**resources, (ROUTES, "iris"): held})
        assert (config.config_status, config.client_status) == (CONFIG.STALE, CLIENT.ACKED)
        assert config.version_info == held.version_info
        assert config.last_updated == held.last_updated
        assert routed_to(config.xds_config) == {"iris/blue"}
        c.reading.set()
        config = (await plane.until("edge-1", all_synced))[ROUTES, "iris"]
        assert config.version_info != held.version_info
        assert config.last_updated.ToMicroseconds() > held.last_updated.ToMicroseconds()


@VARIANTS
async def test_a_refusal_is_reported_with_the_clients_error(plane: Plane, variant: str) -> None:
    error = ""
    async with plane.client("edge-1", variant, refuse=lambda t, names: error if t == ROUTES else "") as c:
        held = (await plane.until("edge-1", all_synced))[ROUTES, "iris"]
        error = "no such thing as green"
        await plane.switch("green")
        await c.until(lambda: c.nacks > 0)
        resources = await plane.until("edge-1", lambda resources: resources[ROUTES, "iris"].config_status == CONFIG.ERROR)
        config = resources[ROUTES, "iris"]
        assert config.client_status == CLIENT.NACKED
        assert config.version_info == held.version_info
        assert routed_to(config.xds_config) == {"iris/blue"}
        assert config.error_state.details == error
        assert config.error_state.version_info not in ("", held.version_info)
        assert routed_to(config.error_state.failed_configuration) == {"iris/green"}
        assert config.error_state.last_update_attempt.ToMicroseconds() > config.last_updated.ToMicroseconds()
        without_contents = (await plane.of("edge-1", exclude_resource_contents=True))[ROUTES, "iris"]
        assert not without_contents.error_state.HasField("failed_configuration")
        error = ""
        await plane.switch("blue")
        assert not (await plane.until("edge-1", all_synced))[ROUTES, "iris"].HasField("error_state")


@VARIANTS
async def test_resources_that_a_node_has_not_subscribed_to_are_not_sent(plane: Plane, variant: str) -> None:
    refuse: Any = lambda type_url, names: "not today" if type_url == LISTENER else ""  # noqa: E731
    async with plane.client("edge-1", variant, refuse=refuse):
        resources = await plane.until("edge-1", lambda f: any(c.config_status == CONFIG.ERROR for c in f.values()))
        listener = resources[LISTENER, "0.0.0.0:10000"]
        assert (listener.version_info, listener.client_status) == ("", CLIENT.NACKED)
        assert not listener.HasField("last_updated")
        assert not listener.HasField("xds_config")
        for key in ((SCOPED_ROUTES, "0.0.0.0:10000/iris"), (ROUTES, "iris")):
            assert (resources[key].config_status, resources[key].client_status) == (CONFIG.NOT_SENT, CLIENT.UNKNOWN)


def unwrapped(data: bytes) -> str:
    return data.decode(errors="replace").replace("\n", "")


async def test_no_response_contains_a_private_key(plane: Plane) -> None:
    async with plane.client("edge-1") as c:
        resources = await plane.until("edge-1", all_synced)
        assert all(mark in unwrapped(c.body(SECRET, "edge")) for mark in pki.marks(EDGE.key))
        answer = unwrapped((await plane.fetch()).SerializeToString())
        assert not any(mark in answer for mark in pki.marks(EDGE.key))
        secret = resources[SECRET, "edge"]
        assert (secret.config_status, secret.HasField("xds_config")) == (CONFIG.SYNCED, False)
        assert secret.version_info == c.held[SECRET]["edge"][0]


async def test_matchers_select_nodes(plane: Plane) -> None:
    async with plane.client("edge-2", "sotw"), plane.client("edge-1", metadata={"tier": "canary"}):
        for node in ("edge-1", "edge-2"):
            await plane.until(node, all_synced)
        answer = await plane.fetch()
        assert [config.node.id for config in answer.config] == ["edge-1", "edge-2"]
        first = answer.config[0].node
        assert (first.cluster, first.user_agent_name, first.user_agent_version) == ("edge", "fake", "1.0")
        assert dict(first.metadata) == {"tier": "canary"}
        assert not (await plane.fetch(node_matchers=[{"node_id": {"prefix": "other"}}])).config
        call = plane.status.StreamClientStatus()
        for matchers, expected in (([], ["edge-1", "edge-2"]), ([{"node_id": {"suffix": "-2"}}], ["edge-2"])):
            await call.write(csds_pb2.ClientStatusRequest(node_matchers=matchers))
            assert [config.node.id for config in (await call.read()).config] == expected
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
    async with asyncio.timeout(20):
        while (await plane.fetch()).config:  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.01)


async def test_nodes_of_worker_processes_are_included(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=2) as plane, AsyncExitStack() as stack:
        nodes = [f"edge-{i}" for i in range(4)]
        clients = [await stack.enter_async_context(plane.client(n)) for n in nodes]
        resources = [await plane.until(n, all_synced) for n in nodes]
        assert [set(f) for f in resources] == [{(t, n) for t, held in c.held.items() for n in held} for c in clients]
        assert [config.node.id for config in (await plane.fetch()).config] == nodes


async def test_reflection_lists_the_service(plane: Plane) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{plane.app.api_port}") as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        for request in ({"list_services": ""}, {"file_containing_symbol": csds.SERVICE}):
            answer = await stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**request)])).read()
            assert csds.SERVICE.rpartition(".")[2] in str(answer)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_an_unsupported_matcher_is_refused_at_its_field(plane: Plane) -> None:
    bad = node_pb2.NodeMatcher(node_id=string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex="(?=a)b")))
    code, details = await refusal(plane.fetch(node_matchers=[bad]))
    assert (code, details.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "node_matchers[0].node_id.safe_regex.regex")
    call = plane.status.StreamClientStatus()
    await call.write(csds_pb2.ClientStatusRequest(node_matchers=[bad]))
    assert (await refusal(call.read()))[0] is grpc.StatusCode.INVALID_ARGUMENT


# ------------------------------------------------------------------------------------- without a control plane around it


def fleet_of(*nodes: str) -> Latest[Fleet | None]:
    fleet = Fleet()
    for number, node in enumerate(nodes):
        fleet.apply(number, StreamOpened("127.0.0.1:1", "delta"), 1.0)
        fleet.apply(number, Identified(node, "edge"), 1.0)
    return Latest(fleet)


def held(name: str, body: bytes, **more: Any) -> ResourceStatus:
    resource = Resource.of(CLUSTER, name, body)
    return ResourceStatus(CLUSTER, name, State.SYNCED, resource, resource, 5.0, True, **more)


def service(nodes: dict[str, list[ResourceStatus]], fleet: Latest[Fleet | None] | None = None) -> csds.ClientStatus:
    async def describe(node_id: str) -> list[ResourceStatus]:
        return nodes[node_id]

    return csds.ClientStatus(fleet or fleet_of(*nodes), describe)


ASK = csds_pb2.ClientStatusRequest().SerializeToString()


async def stream_of(*requests: bytes) -> AsyncIterator[bytes]:
    for request in requests:
        yield request


async def test_the_error_of_a_response_that_is_too_large_names_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    client_status = service({f"n{i}": [held("c", b"x" * 1_000)] for i in range(10)})
    monkeypatch.setattr(csds, "MAX_BYTES", 5_000)
    with pytest.raises(Error) as caught:
        await client_status.fetch(ASK, None)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert "node_matchers" in caught.value.message
    assert "exclude_resource_contents" in caught.value.message
    without_contents = csds_pb2.ClientStatusRequest(exclude_resource_contents=True).SerializeToString()
    assert len(csds_pb2.ClientStatusResponse.FromString(await client_status.fetch(without_contents, None)).config) == 10


async def test_a_stream_answers_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    client_status = service({f"n{i}": [held(f"c{j}", b"x" * 1_000) for j in range(i)] for i in range(5)})
    monkeypatch.setattr(csds, "PART_BYTES", 3_500)
    parts = [csds_pb2.ClientStatusResponse.FromString(part) async for part in client_status.stream(stream_of(ASK), None)]
    assert [[config.node.id for config in part.config] for part in parts] == [["n0", "n1", "n2"], ["n3"], ["n4"]]
    whole = csds_pb2.ClientStatusResponse.FromString(await client_status.fetch(ASK, None))
    assert [config for part in parts for config in part.config] == list(whole.config)
    monkeypatch.setattr(csds, "MAX_BYTES", 3_500)
    with pytest.raises(Error, match="node_matchers"):
        _ = [part async for part in client_status.stream(stream_of(ASK), None)]


async def test_a_stream_answers_each_request_even_without_nodes() -> None:
    client_status = service({})
    assert [part async for part in client_status.stream(stream_of(ASK, ASK), None)] == [b"", b""]
    for data, message in ((b"\xff\xff", "not a ClientStatusRequest"), (b" " * (csds.MAX_REQUEST + 1), "65,537 bytes")):
        with pytest.raises(Error, match=message):
            await client_status.fetch(data, None)


async def test_other_tasks_run_while_many_resources_are_converted() -> None:
    statuses = [held(f"c{i}", b"") for i in range(20_000)]
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count_turns())
    answer = csds_pb2.ClientStatusResponse.FromString(await service({"n": statuses}).fetch(ASK, None))
    task.cancel()
    assert len(answer.config[0].generic_xds_configs) == 20_000
    # There are 40 slices; some take so little time that several run in one turn.
    assert turns >= 5


async def test_a_node_that_disconnects_meanwhile_is_left_out() -> None:
    fleet = fleet_of("a", "b")

    async def describe(node_id: str) -> list[ResourceStatus]:
        assert fleet.value is not None
        fleet.value.apply(1, StreamClosed(), 2.0)
        return []

    answer = csds_pb2.ClientStatusResponse.FromString(await csds.ClientStatus(fleet, describe).fetch(ASK, None))
    assert [config.node.id for config in answer.config] == ["a"]
