"""Memoised streams send exactly what streams with cores of their own would send."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from weakref import WeakSet, ref

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER, ENDPOINTS
from controlplane.errors import Error
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds import memo as memo_module
from controlplane.xds.coordination import Coordination
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Event, Held, Identified
from controlplane.xds.memo import MemoisedStream, TransitionMemo
from controlplane.xds.sotw import SotwStream
from tests.xds import test_histories
from tests.xds.transcript import Transcript, snapshot

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
VARIANTS = pytest.mark.parametrize("variant", [DeltaStream, SotwStream])


class RecallingStream(MemoisedStream):
    """Takes requests as the server does: by their bytes first."""

    recalled = 0

    def receive(self, request: Any, data: bytes = b"") -> Sequence[Event]:
        data = request.SerializeToString()
        events = self.recall(data)
        if events is not None:
            RecallingStream.recalled += 1
            return events
        return super().receive(request, data)


class Snapshots(Transcript):
    """A transcript whose snapshots are the same objects each time that it is played."""

    def __init__(self, path: Path, stream: Any) -> None:
        super().__init__(path.read_text())
        kind = DeltaStream if self.variant == "delta" else SotwStream
        self.stream = stream(kind, self.stream.type_url, self.ttl)


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda p: p.stem)
def test_every_transcript_has_the_same_results_with_the_memo(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.xds.transcript.snapshot", lru_cache(snapshot))
    memo = TransitionMemo()
    for _ in range(3):
        Snapshots(path, partial(RecallingStream, memo=memo)).run()


class Both:
    """A plain core and two memoised streams, which must give the same outputs for the same inputs.

    Nonces in inputs and outputs are those of the plain core.
    """

    def __init__(self, kind: type[DeltaStream] | type[SotwStream], memo: TransitionMemo) -> None:
        self.own = kind()
        self.sharing = [RecallingStream(kind, memo=memo), RecallingStream(kind, memo=memo)]
        # By nonce of the plain core: the nonces of the memoised streams.
        self.nonces: dict[str, list[str]] = {"": ["", ""]}
        self.sent: list[bytes] = []

    def give(self, method: str, *arguments: Any) -> list[Event]:
        results = []
        for i, stream in enumerate([self.own, *self.sharing]):
            inputs = arguments
            if method == "receive":
                request = type(arguments[0]).FromString(arguments[0].SerializeToString())
                if i and request.response_nonce in self.nonces:
                    request.response_nonce = self.nonces[request.response_nonce][i - 1]
                inputs = (request,)
            results.append(getattr(stream, method)(*inputs))
        # A memoised stream reports an identity also when the request has none.
        events = [[e for e in events if not isinstance(e, Identified)] for events in results]
        assert events[0] == events[1] == events[2]
        self.compare_responses()
        return results[0]  # type: ignore[no-any-return]

    def compare_responses(self) -> None:
        received = [stream.to_send() for stream in (self.own, *self.sharing)]
        assert len({len(messages) for messages in received}) == 1
        kind = discovery_pb2.DeltaDiscoveryResponse if isinstance(self.own, DeltaStream) else discovery_pb2.DiscoveryResponse
        for datas in zip(*received, strict=True):
            parsed: list[Any] = [kind.FromString(data) for data in datas]
            self.nonces[parsed[0].nonce] = [p.nonce for p in parsed[1:]]
            for p in parsed:
                p.nonce = "n"
            assert parsed[0] == parsed[1] == parsed[2]
            self.sent.append(datas[0])

    def receive(self, request: Any) -> list[Event]:
        return self.give("receive", request)

    def offer(self, snapshot: Snapshot) -> list[Event]:
        return self.give("offer", snapshot)

    def retry_in_parts(self) -> list[Event]:
        return self.give("retry_in_parts")

    def assume_complete(self) -> list[Event]:
        return self.give("assume_complete")

    def to_send(self) -> list[bytes]:
        sent, self.sent = self.sent, []
        return sent


class SharedHistories(test_histories.Histories):
    """All streams of a history use one memo: a stream that reconnects finds the states of the earlier ones."""

    def __init__(self) -> None:
        self.memo = TransitionMemo()
        super().__init__()

    def connect(self) -> None:
        super().connect()
        self.stream: Any = Both(DeltaStream if self.variant == "delta" else SotwStream, self.memo)
        if self.snapshot is not None:
            self.take(self.stream.offer(self.snapshot))


class SharedSotwHistories(SharedHistories):
    variant = "sotw"


@pytest.mark.parametrize("machine", [SharedHistories, SharedSotwHistories], ids=["delta", "sotw"])
def test_random_histories_are_the_same_with_the_memo(machine: type[SharedHistories]) -> None:
    test_histories.run(machine, 60)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("machine", [SharedHistories, SharedSotwHistories], ids=["delta", "sotw"])
def test_random_histories_are_the_same_with_the_memo_at_length(machine: type[SharedHistories]) -> None:
    test_histories.run(machine, 3_000)


# ------------------------------------------------------------------------------------------------------- what is shared


def node(name: str) -> base_pb2.Node:
    return base_pb2.Node(id=name)


def clusters(revision: int, *contents: str) -> Snapshot:
    return Snapshot.of(revision, Audience(), [Resource.of(CLUSTER, c[0], c.encode()) for c in contents])


def ask(variant: Any, name: str = "", nonce: str = "", error: str = "") -> Any:
    kind: Any = discovery_pb2.DeltaDiscoveryRequest if variant is DeltaStream else discovery_pb2.DiscoveryRequest
    request = kind(type_url=CLUSTER, response_nonce=nonce)
    if name:
        request.node.id = name
    if error:
        request.error_detail.message = error
    return request


def nonce(variant: Any, data: bytes) -> str:
    kind: Any = discovery_pb2.DeltaDiscoveryResponse if variant is DeltaStream else discovery_pb2.DiscoveryResponse
    newest: str = kind.FromString(data).nonce
    return newest


@VARIANTS
def test_the_second_of_two_equal_streams_computes_nothing(variant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memo, snapshots = TransitionMemo(), [clusters(1, "a1"), clusters(2, "a2")]

    def play(name: str) -> list[bytes]:
        stream, received = MemoisedStream(variant, memo=memo), []
        (who,) = stream.receive(ask(variant, name))
        assert isinstance(who, Identified)
        assert who.id == name
        for offered in snapshots:
            stream.offer(offered)
            (data,) = stream.to_send()
            received.append(data)
            request = ask(variant, nonce=nonce(variant, data)).SerializeToString()
            events = stream.recall(request)
            if events is None:
                events = stream.receive(ask(variant, nonce=nonce(variant, data)), request)
            assert list(events) == [Held(offered.revision)]
        return received

    first = play("one")
    monkeypatch.setattr(variant, "fork", None)  # nothing is computed any more
    again = play("other")
    assert first == again
    assert all(a is b for a, b in zip(first, again, strict=True))


@VARIANTS
def test_a_second_client_with_the_same_id_computes_nothing(variant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memo, node = TransitionMemo(), Coordination()
    offered = [clusters(1, "a1"), clusters(2, "a2")]

    def join() -> MemoisedStream:
        stream = MemoisedStream(variant, memo=memo)
        node.join(stream, 0.0)
        stream.receive(ask(variant, "same"))
        return stream

    def play(stream: MemoisedStream) -> Sequence[Event]:
        (response,) = stream.to_send()
        ack = ask(variant, nonce=nonce(variant, response))
        data = ack.SerializeToString()
        return stream.recall(data) or stream.receive(ack, data)

    first = join()
    for newest in offered:
        first.offer(newest)
        assert list(play(first)) == [Held(newest.revision)]
    other = MemoisedStream(variant, memo=memo)
    other.receive(ask(variant, "other"))
    other.offer(offered[1])
    assert list(play(other)) == [Held(2)]
    monkeypatch.setattr(variant, "fork", None)  # nothing is computed any more
    second = join()
    assert second.coordination is first.coordination is None
    second.offer(offered[1])
    assert list(play(second)) == [Held(2)]


@VARIANTS
def test_assume_complete_waits_until_nothing_is_in_flight(variant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memo, offered = TransitionMemo(), clusters(1, "a1")

    def begun(name: str) -> tuple[MemoisedStream, str]:
        stream = MemoisedStream(variant, memo=memo)
        stream.receive(ask(variant, name))
        stream.offer(offered)
        return stream, nonce(variant, *stream.to_send())

    first, newest = begun("first")
    first.receive(ask(variant, nonce=newest))
    first.assume_complete()
    second, newest = begun("second")
    monkeypatch.setattr(variant, "fork", None)  # nothing is computed any more
    assert second.assume_complete() == []
    assert list(second.receive(ask(variant, nonce=newest))) == [Held(1)]
    assert second._state is first._state
    assert not second._assume_by
    assert first._state is not None
    assert first._state.core._assumed_complete


@VARIANTS
def test_assume_complete_waits_for_a_limited_time(variant: Any) -> None:
    def begun(own: bool) -> MemoisedStream:
        stream = MemoisedStream(variant, memo=TransitionMemo())
        stream.receive(ask(variant, "n"))
        stream.offer(clusters(1, "a1"))
        newest = nonce(variant, *stream.to_send())
        stream.now = 5.0
        stream.assume_complete()
        if own:  # since it refuses something
            stream.receive(ask(variant, nonce=newest, error="no"))
            assert stream._core is not None
            assert stream._core._assumed_complete
        return stream

    begun(own=True)
    stream = begun(own=False)
    for now, complete in ((14.9, False), (15.0, True)):
        stream.now = now
        stream.receive(ask(variant, nonce="of another stream"))
        assert stream._state is not None
        assert stream._state.core.awaits_answer
        assert stream._state.core._assumed_complete is complete


def test_streams_with_different_histories_share_a_state() -> None:
    memo, newest = TransitionMemo(), clusters(2, "a2")
    streams = []
    for snapshots in ([newest], [clusters(1, "a1"), newest]):
        stream = MemoisedStream(DeltaStream, memo=memo)
        stream.receive(ask(DeltaStream, "n"))
        for offered in snapshots:
            stream.offer(offered)
            (data,) = stream.to_send()
            stream.receive(ask(DeltaStream, nonce=nonce(DeltaStream, data)))
        streams.append(stream)
    assert streams[0]._state is streams[1]._state
    assert streams[0]._state is not None


@VARIANTS
def test_a_stream_that_refuses_has_its_own_core_until_it_recovers(variant: Any) -> None:
    memo = TransitionMemo()
    bad, good = (MemoisedStream(variant, memo=memo) for _ in range(2))
    sent, first = {}, clusters(1, "a1")
    for stream in (bad, good):
        stream.receive(ask(variant, "n"))
        stream.offer(first)
        (sent[stream],) = stream.to_send()
    assert bad._state is good._state
    bad.now = 77.0
    (refused,) = bad.receive(ask(variant, nonce=nonce(variant, sent[bad]), error="no"))
    assert refused.message == "no"  # type: ignore[union-attr]
    assert [r.time for sub in bad.subscriptions for r in sub.refused.values()] == [77.0]
    good.receive(ask(variant, nonce=nonce(variant, sent[good])))
    mended = clusters(2, "a2")
    for stream in (bad, good):
        stream.offer(mended)
        (data,) = stream.to_send()
        assert stream.receive(ask(variant, nonce=nonce(variant, data)))[-1] == Held(2)
    if variant is DeltaStream:  # the newest nonce is part of the state of a SotW stream
        assert bad._state is good._state
    assert bad._core is None


def test_each_stream_has_its_own_ack_times() -> None:
    memo, snapshot = TransitionMemo(), clusters(1, "a1", "b1")
    streams = [MemoisedStream(DeltaStream, memo=memo) for _ in range(2)]
    for stream, now in zip(streams, (10.0, 20.0), strict=True):
        stream.now = now
        stream.receive(ask(DeltaStream, "n"))
        stream.offer(snapshot)
        (data,) = stream.to_send()
        stream.now = now + 1
        stream.receive(ask(DeltaStream, nonce=nonce(DeltaStream, data)))
    assert [[sub.times.by_name for sub in s.subscriptions] for s in streams] == [
        [{"a": 11.0, "b": 11.0}],
        [{"a": 21.0, "b": 21.0}],
    ]
    assert streams[0]._state is streams[1]._state


def test_ack_times_do_not_depend_on_when_they_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    times = []
    for unfolded in (0, 3, 1_000):
        monkeypatch.setattr(memo_module, "_MOST_UNFOLDED", unfolded)
        stream = MemoisedStream(DeltaStream, memo=TransitionMemo())
        stream.receive(ask(DeltaStream, "n"))
        for revision in range(1, 40):
            stream.now = float(revision)
            stream.offer(clusters(revision, *(f"{chr(97 + i)}{revision // (i + 1)}" for i in range(26))))
            (data,) = stream.to_send()
            stream.receive(ask(DeltaStream, nonce=nonce(DeltaStream, data)))
            assert len(stream._times.unfolded) <= unfolded
        (sub,) = stream.subscriptions
        times.append((sub.times.by_name, sub.times.others))
    assert times[0] == times[1] == times[2]
    assert times[0][0]["a"] == times[0][0]["m"] == 39.0
    assert len(times[0][0]) == 15
    assert times[0][1] < 39.0


def test_a_stream_never_gets_a_nonce_twice_even_in_the_same_state() -> None:
    memo, snapshot = TransitionMemo(), clusters(1, "a1")
    streams = [MemoisedStream(DeltaStream, memo=memo) for _ in range(2)]
    received: list[list[str]] = [[], []]
    for stream, nonces in zip(streams, received, strict=True):
        stream.receive(ask(DeltaStream, "n"))
        stream.offer(snapshot)
        for _ in range(4):
            (data,) = stream.to_send()
            nonces.append(nonce(DeltaStream, data))
            stream.receive(ask(DeltaStream, nonce=nonces[-1]))
            state = stream._state
            stream.receive(discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, resource_names_subscribe=["a"]))
        assert stream._state is not state
    assert all(len(set(nonces)) == 4 for nonces in received)
    assert received[0][0] == received[1][0]


def test_an_error_leaves_a_stream_in_its_state() -> None:
    stream = MemoisedStream(DeltaStream, CLUSTER, memo=TransitionMemo())
    stream.receive(ask(DeltaStream, "n"))
    with pytest.raises(Error):
        stream.receive(discovery_pb2.DeltaDiscoveryRequest(type_url=ENDPOINTS))
    assert not stream.offer(clusters(1))
    assert len(stream.to_send()) == 1


def test_the_memo_is_bounded_in_bytes_and_in_revisions() -> None:
    memo = TransitionMemo(most=300_000)
    stream = MemoisedStream(DeltaStream, memo=memo)
    stream.receive(ask(DeltaStream, "n"))
    for revision in range(1, 100):
        stream.offer(clusters(revision, f"a{revision}"))
        (data,) = stream.to_send()
        stream.receive(ask(DeltaStream, nonce=nonce(DeltaStream, data)))
        assert memo._bytes <= 300_000
        assert len(memo._order) <= 3 * (memo_module._MOST_REVISIONS + 1)
    assert sum(size for _, size, _, _ in memo._order) == memo._bytes


@VARIANTS
def test_an_unused_core_is_freed_by_reference_count(variant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    forks: WeakSet[Any] = WeakSet()
    fork = variant.fork

    def counted_fork(core: Any) -> Any:
        forks.add(other := fork(core))
        return other

    monkeypatch.setattr(variant, "fork", counted_fork)
    memo, left = TransitionMemo(), []
    gc.disable()
    try:
        streams = [MemoisedStream(variant, memo=memo) for _ in range(3)]
        for stream in streams:
            stream.receive(ask(variant, "n"))
        for revision in range(1, 100):
            offered = clusters(revision, f"a{revision}")
            for stream in streams:
                stream.offer(offered)
                (data,) = stream.to_send()
                # The first one refuses every other revision, and so has a core of its own for a while.
                error = "no" if stream is streams[0] and revision % 2 else ""
                stream.receive(ask(variant, nonce=nonce(variant, data), error=error))
            left.append(len(forks))
        assert max(left[50:]) <= max(left[:50])
        assert left[-1] <= 4 * (memo_module._MOST_REVISIONS + 1)
        streams[0].offer(clusters(100, "a100"))
        (data,) = streams[0].to_send()
        streams[0].receive(ask(variant, nonce=nonce(variant, data), error="no"))
        own = ref(streams[0]._core)
        assert own() is not None
        streams.clear()
        del stream
        assert own() is None
    finally:
        gc.enable()
