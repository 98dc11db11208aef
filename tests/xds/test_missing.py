"""SotW: what was asked for by name and is not there is told so, in the answer that lacks it."""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import code_pb2

from controlplane.envoy_types import LISTENER
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds.sotw import SotwStream

IRIS = Resource.of(LISTENER, "iris", b"1")


def ask(*names: str, nonce: str = "") -> discovery_pb2.DiscoveryRequest:
    return discovery_pb2.DiscoveryRequest(type_url=LISTENER, resource_names=names, response_nonce=nonce)


class Told:
    """What a stream said last."""

    nonce = ""


def answered(stream: SotwStream, told: Told) -> list[tuple[int, list[str]]]:
    """Of each response: how many resources it has, and the names that it says are not there."""
    found = []
    for data in stream.to_send():
        response = discovery_pb2.DiscoveryResponse.FromString(data)
        assert all(e.error_detail.code == code_pb2.NOT_FOUND for e in response.resource_errors)
        missing = [e.resource_name.name for e in response.resource_errors]
        told.nonce = response.nonce
        found.append((len(response.resources), missing))
    return found


def test_a_name_that_nothing_has_is_told_once() -> None:
    stream, told = SotwStream(), Told()
    stream.offer(Snapshot.of(1, Audience(), [IRIS]))
    stream.receive(ask("rose", "wine"))
    assert answered(stream, told) == [(0, ["rose", "wine"])]
    stream.receive(ask("rose", "wine", nonce=told.nonce))
    assert answered(stream, told) == []
    stream.receive(ask("iris", "rose", "wine", nonce=told.nonce))
    assert answered(stream, told) == [(1, [])]


def test_what_comes_later_is_sent_and_what_goes_is_no_error() -> None:
    stream, told = SotwStream(), Told()
    stream.offer(Snapshot.of(1, Audience(), []))
    stream.receive(ask("iris"))
    assert answered(stream, told) == [(0, ["iris"])]
    stream.receive(ask("iris", nonce=told.nonce))
    stream.offer(Snapshot.of(2, Audience(), [IRIS]))
    assert answered(stream, told) == [(1, [])]
    stream.receive(ask("iris", nonce=told.nonce))
    stream.offer(Snapshot.of(3, Audience(), []))
    assert answered(stream, told) == [(0, [])]


def test_wildcards_miss_nothing() -> None:
    stream, told = SotwStream(), Told()
    stream.offer(Snapshot.of(1, Audience(), []))
    stream.receive(ask())
    assert answered(stream, told) == [(0, [])]
