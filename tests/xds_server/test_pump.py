"""One xDS stream between a transport without sockets and the real core."""

from __future__ import annotations

import asyncio
import gc
from weakref import ref

import pytest
from structlog.testing import capture_logs

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from controlplane.http2.grpc_status import StatusCode
from controlplane.published import CompiledRevision
from controlplane.xds_server import duplicate_node_id, pump, reading_budget, variants
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.send_queue import SendQueue
from tests.xds_server.fake_transport import Rig, request, settle
from tests.xds_server.rig import BLUE, GREEN


async def test_a_client_is_sent_the_newest_revision_and_its_acks_are_reported() -> None:
    rig = Rig()
    stream, transport = rig.open()
    stream.receive_message(request(CLUSTER, node="edge-1"))
    (response,) = transport.responses()
    assert sorted(r.name for r in response.resources) == ["iris/blue", "iris/green"]
    stream.receive_message(request(CLUSTER, nonce=response.nonce))
    assert rig.kinds() == ["StreamOpened", "Identified", "AudienceAssigned"]
    # The stream holds the whole revision once it has ACKed endpoints and routes.
    stream.receive_message(request(ENDPOINTS, "iris/blue", "iris/green"))
    stream.receive_message(request(ROUTES, "iris"))
    assert settle(stream, transport) == [ENDPOINTS, ROUTES]
    rig.publish(GREEN)
    assert stream.push(0.0) > 0.0
    assert settle(stream, transport) == [ROUTES]
    assert stream.offered is rig.published.value
    stream.end()
    assert rig.kinds()[-1] == "StreamClosed"
    assert transport.statuses == [None]


async def test_nothing_is_offered_before_the_first_request() -> None:
    rig = Rig()
    stream, transport = rig.open()
    stream.push(0.0)
    assert (transport.messages, stream.offered, stream.deprioritised) == ([], None, True)


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"\xff\xff\xff", StatusCode.INVALID_ARGUMENT, "not a discovery request"),
        (request(CLUSTER), StatusCode.INVALID_ARGUMENT, "node.id"),
        (request(CLUSTER, "a", "b", "c", node="x"), StatusCode.RESOURCE_EXHAUSTED, "3 names on one stream"),
    ],
)
async def test_a_bad_request_ends_the_stream_with_a_status(data: bytes, code: StatusCode, text: str) -> None:
    rig = Rig(StreamLimits(names_per_stream=2))
    stream, transport = rig.open()
    stream.receive_message(data)
    (status,) = transport.statuses
    assert status is not None
    assert status.code is code
    assert text in status.message
    assert stream.ended
    assert not rig.discovery._pumps
    # An ended stream ignores everything.
    stream.receive_message(request(CLUSTER, node="x"))
    stream.push(0.0)
    stream.heartbeat(0.0)
    stream.reconsider()
    stream.end()
    assert (rig.kinds(), len(transport.statuses)) == (["StreamOpened", "StreamClosed"], 1)


async def test_a_stream_that_is_subscribed_to_too_many_names_over_time_ends() -> None:
    rig = Rig(StreamLimits(names_per_stream=2))
    stream, transport = rig.open()
    stream.receive_message(request(ENDPOINTS, "a", "b", node="x"))
    stream.receive_message(request(ENDPOINTS, "c"))
    (status,) = transport.statuses
    assert status is not None
    assert status.code is StatusCode.RESOURCE_EXHAUSTED


async def test_an_exception_in_a_push_ends_this_stream_only(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    (bad, bad_transport), (good, good_transport) = rig.open(), rig.open()
    for stream, node in ((bad, "bad"), (good, "good")):
        stream.receive_message(request(CLUSTER, node=node))
    rig.publish(GREEN)
    with monkeypatch.context() as patched, capture_logs() as lines:
        patched.setattr(CompiledRevision, "snapshot", lambda *_: 1 / 0)
        bad.push(0.0)
    good.push(0.0)
    (status,) = bad_transport.statuses
    assert status is not None
    assert status.code is StatusCode.INTERNAL
    assert [line["event"] for line in lines] == ["stream failed"]
    assert not good_transport.statuses


async def test_a_stream_without_a_request_ends() -> None:
    rig = Rig(StreamLimits(first_request_timeout=0.01))
    _, transport = rig.open()
    await asyncio.sleep(0.05)
    (status,) = transport.statuses
    assert status is not None
    assert (status.code, status.message) == (
        StatusCode.FAILED_PRECONDITION,
        "no request came within 0.01 s after the stream was opened",
    )


async def test_an_old_stream_ends_with_ok() -> None:
    rig = Rig(StreamLimits(max_stream_age=0.01))
    _, transport = rig.open()
    await asyncio.sleep(0.05)
    assert transport.statuses == [None]


async def test_a_half_closed_stream_ends_once_the_client_has_taken_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "DRAIN_TIMEOUT", 0.05)
    rig = Rig()
    (one, fast), (two, slow) = rig.open(), rig.open()
    slow.has_room = False
    for stream in (one, two):
        stream.receive_message(request(CLUSTER, node="x"))
        stream.half_closed()
    assert (len(fast.messages), fast.statuses) == (1, [None])
    assert not two.ended
    await asyncio.sleep(0.1)
    assert slow.statuses == [None]


async def test_a_client_that_takes_nothing_is_not_read_until_it_does() -> None:
    rig = Rig()
    stream, transport = rig.open()
    transport.has_room = False
    stream.receive_message(request(ENDPOINTS, "iris/blue", node="x"))
    async with asyncio.timeout(10):
        while not stream._queue.full:
            if stream.reading:
                stream.receive_message(request(ENDPOINTS, "iris/blue"))
            await asyncio.sleep(0)
    assert (len(stream._queue.messages), stream.reading) == (SendQueue.MAX_MESSAGES, False)
    resumed = transport.resumed
    await asyncio.sleep(0.02)  # nothing should happen, so there is no condition to wait for
    assert transport.resumed == resumed
    transport.has_room = True
    transport.notify()
    await asyncio.sleep(0.02)
    assert (transport.resumed, stream.reading) == (resumed + 1, True)
    assert len(transport.messages) == SendQueue.MAX_MESSAGES


async def test_a_stream_pauses_after_its_time_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_budget, "READING_TIME_SLICE", 0.0)
    rig = Rig()
    stream, transport = rig.open()
    stream.receive_message(request(CLUSTER, node="x"))
    assert not stream.reading
    await asyncio.sleep(0.02)
    assert (stream.reading, transport.resumed) == (True, 1)


async def test_a_large_request_is_processed_in_parts_while_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "NAMES_PER_PART", 2)
    rig = Rig()
    stream, transport = rig.open()
    stream.receive_message(request(ENDPOINTS, *(f"no-{n}" for n in range(7)), node="x"))
    assert (len(transport.messages), stream.reading) == (1, False)
    async with asyncio.timeout(5):
        while not stream.reading:  # noqa: ASYNC110  the transport is called once, which ends the wait
            await asyncio.sleep(0)
    removed: list[str] = []
    settle(stream, transport, lambda response: removed.extend(response.removed_resources))
    assert sorted(removed) == [f"no-{n}" for n in range(7)]


async def test_a_push_that_is_slow_or_sends_nothing_deprioritises_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    stream, _ = rig.open(ROUTES)
    stream.receive_message(request(ROUTES, "iris", node="x"))
    clock = asyncio.get_running_loop().time
    rig.publish(GREEN)
    stream.push(clock())
    assert stream.deprioritised  # it has not ACKed, so there was nothing to send
    other, transport = rig.open(ROUTES)
    other.receive_message(request(ROUTES, "iris", node="y"))
    settle(other, transport)
    for model, slow_push, deprioritised in ((BLUE, 60.0, False), (GREEN, -1.0, True)):
        monkeypatch.setattr(pump, "SLOW_PUSH", slow_push)
        rig.publish(model)
        other.push(clock())
        assert other.deprioritised is deprioritised
        assert settle(other, transport) == [ROUTES]


async def test_two_envoys_with_one_node_id_are_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicate_node_id, "CONFIRM_AFTER", 0.01)
    rig = Rig()
    streams = [rig.open(peer=f"10.0.0.{n}:1")[0] for n in (1, 1, 2)]
    with capture_logs() as lines:
        for stream in streams:
            stream.receive_message(request(LISTENER, node="edge-1"))
        await asyncio.sleep(0.05)
    assert [(line["event"], line["node"], sorted(line["addresses"])) for line in lines] == [
        ("two Envoys use one node id", "edge-1", ["10.0.0.1", "10.0.0.2"])
    ]
    assert "two Envoys use this node id" in str(rig.events[-1])
    # A stream of one type does not show a second Envoy.
    only, _ = rig.open(CLUSTER, peer="10.0.0.3:1")
    only.receive_message(request(CLUSTER, node="edge-2"))
    assert only.host == ""


async def test_heartbeats_are_sent_to_clients_that_support_ttls() -> None:
    rig = Rig(StreamLimits(resource_ttl=10))
    stream, transport = rig.open()
    stream.receive_message(request(CLUSTER, node="x"))
    settle(stream, transport)
    stream.heartbeat(0.0)
    (response,) = transport.responses()
    assert [r.ttl.seconds for r in response.resources] == [10, 10]


async def test_an_ended_pump_is_freed_without_the_cycle_collector() -> None:
    rig = Rig()
    stream, transport = rig.open()
    stream.receive_message(request(CLUSTER, node="x"))
    gone = ref(stream)
    stream.end()
    transport.handler = None
    gc.disable()
    try:
        del stream
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()
