"""The registry of streams by node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2

from controlplane.errors import Code, Error
from controlplane.http2.peer import Credential, Peer
from controlplane.xds.coordination import Coordination
from controlplane.xds.memo import MemoisedStream, TransitionMemo
from controlplane.xds.view import StreamView
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.node_streams import NodeRegistry, NodeStreams
from controlplane.xds_server.variants import DELTA


class FakePump:
    """A pump that records its calls."""

    def __init__(self, host: str = "", identity: str = "") -> None:
        self.core: StreamView = MemoisedStream(DELTA.core, memo=TransitionMemo())
        self.host = host
        self.peer = Peer("127.0.0.1:1", Credential(identity, 0.0) if identity else None)
        self.calls: list[str] = []

    def reconsider(self, *, adopt: bool = False) -> None:
        self.calls.append("adopt" if adopt else "reconsider")

    def end(self) -> None:
        self.calls.append("end")


def node(name: str = "edge-1") -> Any:
    return base_pb2.Node(id=name)


async def test_the_streams_of_another_identity_do_not_count() -> None:
    nodes = NodeRegistry(StreamLimits(streams_per_node=1))
    nodes.join(FakePump(identity="spiffe://td/liar"), node())
    nodes.join(FakePump(identity="spiffe://td/edge-1"), node())
    with pytest.raises(Error, match="has 1 streams open already"):
        nodes.join(FakePump(identity="spiffe://td/edge-1"), node())


async def test_a_node_is_known_from_its_first_stream_to_its_last() -> None:
    nodes, pumps = NodeRegistry(StreamLimits()), [FakePump(), FakePump()]
    assert nodes.get("edge-1") is None
    streams = [nodes.join(pump, node()) for pump in pumps]
    assert streams[0] is streams[1] is nodes.get("edge-1")
    assert list(nodes) == ["edge-1"]
    assert streams[0].cores == tuple(pump.core for pump in pumps)
    nodes.leave(pumps[0], streams[0])
    assert len(streams[0]) == 1
    nodes.leave(pumps[1], streams[1])
    assert len(nodes) == 0
    assert nodes.get("edge-1") is None


async def test_a_stream_that_the_limits_do_not_admit_is_not_registered() -> None:
    nodes = NodeRegistry(StreamLimits(streams_per_node=1))
    with pytest.raises(Error) as caught:
        nodes.join(FakePump(), node(""))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert len(nodes) == 0
    nodes.join(FakePump(), node())
    with pytest.raises(Error) as caught:
        nodes.join(FakePump(), node())
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    streams = nodes.get("edge-1")
    assert streams is not None
    assert len(streams) == 1


async def test_end_ends_every_stream_of_the_node() -> None:
    streams, pumps = NodeStreams("edge-1", 1.0), [FakePump(), FakePump()]
    for pump in pumps:
        streams.join(pump)
    streams.adopt()
    streams.end()
    assert [pump.calls for pump in pumps] == [["adopt", "end"], ["adopt", "end"]]


async def test_other_host_returns_the_host_of_another_stream() -> None:
    streams, pumps = NodeStreams("edge-1", 1.0), [FakePump("a"), FakePump(), FakePump("b")]
    for pump in pumps:
        streams.join(pump)
    assert [streams.other_host(pump) for pump in pumps] == ["b", "", "a"]


async def test_streams_that_waited_reconsider_after_a_request_and_when_their_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams, pumps = NodeStreams("edge-1", 1.0), [FakePump(), FakePump()]
    for pump in pumps:
        streams.join(pump)
    waiting = [pumps[1].core]
    now = asyncio.get_running_loop().time()
    monkeypatch.setattr(Coordination, "after_request", lambda _, stream: waiting)
    monkeypatch.setattr(Coordination, "take_overdue", lambda _: [waiting.pop()])
    monkeypatch.setattr(Coordination, "next_deadline", property(lambda _: now + 0.02 if waiting else None))
    streams.after_request(pumps[0])
    assert [pump.calls for pump in pumps] == [[], ["reconsider"]]
    assert streams._timer is not None
    await asyncio.sleep(0.1)
    assert [pump.calls for pump in pumps] == [[], ["reconsider", "reconsider"]]
    assert streams._timer is None
    # When the last stream leaves, the timer is cancelled.
    waiting.append(pumps[1].core)
    streams.after_offer()
    assert streams._timer is not None
    for pump in pumps:
        streams.leave(pump)
    assert streams._timer is None
