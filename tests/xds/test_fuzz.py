"""Fuzz the cores: the only error is INVALID_ARGUMENT, and the state of a stream stays within its bounds.

Inputs are valid requests in random order, requests with changed bytes, pieces of requests, and random bytes. After an error a
new stream is opened. The seed is fixed, so every run has the same inputs.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ORDER, ROUTES, SCOPED_ROUTES
from controlplane.errors import Code, Error
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds.delta import DeltaStream
from controlplane.xds.sotw import SotwStream
from controlplane.xds.stream import MAX_TYPES, MAX_UNANSWERED

Variant = type[DeltaStream] | type[SotwStream]

NAMES = ("", "*", "a", "b", "c", "m", "g", "g/m", "zz", "é", "x" * 300, "\0", "a\n")
TYPES = (*ORDER, *ORDER, *ORDER, "", "x", "type.googleapis.com/envoy.service.runtime.v3.Runtime")
FEATURES = ("xds.config.supports-resource-ttl", "xds.config.resource-in-sotw", "xds.config.supports-resource-in-sotw")
REQUESTS: dict[Variant, Any] = {
    DeltaStream: discovery_pb2.DeltaDiscoveryRequest,
    SotwStream: discovery_pb2.DiscoveryRequest,
}

RESPONSES: dict[Variant, Any] = {
    DeltaStream: discovery_pb2.DeltaDiscoveryResponse,
    SotwStream: discovery_pb2.DiscoveryResponse,
}


def random_snapshot(rng: random.Random, revision: int) -> Snapshot:
    """Return a small snapshot, which has something of each type most of the time."""
    resources = []
    for name in "abc":
        if rng.random() < 0.8:
            resources.append(Resource.of(CLUSTER, name, b"%d" % rng.randrange(3), [(ENDPOINTS, name)]))
            resources.append(Resource.of(ENDPOINTS, name, b"%d" % rng.randrange(3)))
    if rng.random() < 0.8:
        resources.append(Resource.of(ROUTES, "m", b"%d" % rng.randrange(3), [(CLUSTER, rng.choice("abc"))]))
        resources.append(Resource.of(SCOPED_ROUTES, "g/m", b"0", [(ROUTES, "m")]))
        resources.append(Resource.of(LISTENER, "g", b"0"))
    return Snapshot.of(revision, Audience(), resources)


class Fuzzer:
    """One seeded run against one variant."""

    def __init__(self, variant: Variant, seed: int) -> None:
        self.variant, self.rng = variant, random.Random(seed)
        self.revision = 0
        self.seen: list[bytes] = []
        # Counted, so that a run without any effect is noticed.
        self.responses = self.errors = self.events = 0
        self.open()

    def open(self) -> None:
        service = self.rng.choice(("", "", "", *ORDER))
        self.stream = self.variant(service, self.rng.choice((0, 9)))
        self.nonces: list[str] = []
        if self.rng.random() < 0.9:
            self.stream.offer(random_snapshot(self.rng, self.revision))

    def request(self) -> Any:
        """Return a request that a client could send."""
        rng = self.rng
        message = REQUESTS[self.variant](type_url=rng.choice(TYPES))
        if rng.random() < 0.7 and self.nonces:
            message.response_nonce = rng.choice((self.nonces[-1], rng.choice(self.nonces), "nonsense"))
        if rng.random() < 0.2:
            message.error_detail.code = rng.randrange(-5, 20)
            message.error_detail.message = rng.choice(NAMES)
        if rng.random() < 0.1:
            message.node.CopyFrom(base_pb2.Node(id=rng.choice(NAMES), client_features=rng.sample(FEATURES, rng.randrange(4))))
            message.node.metadata.fields["n"].number_value = rng.choice((0.0, float("nan"), float("inf")))
        names = [rng.choice(NAMES) for _ in range(rng.choice((0, 0, 1, 2, 5)))]
        if isinstance(message, discovery_pb2.DiscoveryRequest):
            message.resource_names.extend(names)
            message.version_info = rng.choice(("", "0", "f" * 32))
        else:
            message.resource_names_subscribe.extend(names)
            message.resource_names_unsubscribe.extend(rng.choice(NAMES) for _ in range(rng.choice((0, 0, 1, 3))))
            for name in names[:2]:
                message.initial_resource_versions[name] = rng.choice(("", "0", "v"))
        return message

    def bytes(self) -> bytes:
        """Return the bytes of one message, often damaged."""
        rng = self.rng
        kind = rng.random()
        data: bytes = self.request().SerializeToString()
        if kind < 0.6:
            self.seen.append(data)
            del self.seen[:-50]
            return data
        if kind < 0.9 and data:
            changed = bytearray(data)
            for _ in range(rng.randrange(1, 4)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            return bytes(changed)
        if kind < 0.97 and self.seen:
            other = rng.choice(self.seen)
            return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
        return rng.randbytes(rng.randrange(40))

    def receive(self, request: Any) -> bool:
        """Give the stream a request. Returns whether it was accepted; every error but INVALID_ARGUMENT is a failure."""
        try:
            self.events += len(self.stream.receive(request))
        except Error as error:
            if error.code is not Code.INVALID_ARGUMENT:
                raise
            return False
        return True

    def step(self) -> None:
        """Make one input, sometimes something else, and take the responses."""
        data = self.bytes()
        try:
            request = REQUESTS[self.variant].FromString(data)
        except DecodeError:
            return
        if not self.receive(request):
            self.errors += 1
            self.open()
            return
        chance = self.rng.random()
        if chance < 0.05:
            self.revision += 1
            self.stream.offer(random_snapshot(self.rng, self.revision))
        elif chance < 0.07:
            self.rng.choice((self.stream.assume_complete, self.stream.retry_in_parts, self.stream.heartbeat))()
        elif chance < 0.08:
            self.open()
        for response in self.stream.to_send():
            self.responses += 1
            self.nonces.append(RESPONSES[self.variant].FromString(response).nonce)
            del self.nonces[:-20]
        self.check_bounds()

    def check_bounds(self) -> None:
        """Check the bounds of what a stream keeps."""
        assert len(self.stream._subscriptions) <= MAX_TYPES
        for sub in self.stream._subscriptions.values():
            assert len(sub.inflight) <= MAX_UNANSWERED
            assert all(len(refusal.earlier) < 10 for refusal in sub.refused.values())
            assert not self.stream.to_send()


def run(variant: Variant, inputs: int, seed: int) -> Fuzzer:
    fuzzer = Fuzzer(variant, seed)
    for _ in range(inputs):
        fuzzer.step()
    return fuzzer


@pytest.mark.parametrize("variant", [DeltaStream, SotwStream])
def test_the_only_error_is_invalid_argument(variant: Variant) -> None:
    fuzzer = run(variant, 10_000, seed=1)
    assert fuzzer.responses > 500
    assert fuzzer.errors > 100
    assert fuzzer.events > 500


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("variant", [DeltaStream, SotwStream])
def test_the_only_error_is_invalid_argument_at_length(variant: Variant) -> None:
    for seed in range(51):
        run(variant, 10_000, seed)
