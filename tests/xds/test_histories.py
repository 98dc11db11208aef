"""Random histories of snapshots, in random order with an honest client's messages, in both variants.

`client.Client` checks everything that must be true at the client. This module checks two things more: refused content is not
sent again, and at the end the client has exactly the newest snapshot and the stream reports `Held`.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from controlplane.envoy_types import CLUSTER, ENDPOINTS, FULL_STATE, LISTENER, ORDER, ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Event, Held, Refused
from controlplane.xds.sotw import SotwStream
from tests.xds.client import Client, resource

CLUSTERS = ("a", "b", "c", "d")
MODELS = ("m", "n", "o")


@dataclass(frozen=True)
class Model:
    content: int
    clusters: frozenset[str]
    bad: bool


@dataclass(frozen=True)
class RandomState:
    """A small consistent state: routes name clusters that exist, and scopes name the routes."""

    models: tuple[Model | None, ...]
    spare: frozenset[str]
    # For each cluster: its content, the content of its endpoints, and whether a client refuses it.
    clusters: tuple[tuple[int, int, bool], ...]

    def snapshot(self, revision: int, healed: bool = False) -> Snapshot:
        resources: list[Resource] = []
        used = set(self.spare)
        for name, model in zip(MODELS, self.models, strict=True):
            if model is not None:
                used |= model.clusters
                resources.append(
                    resource(ROUTES, name, model.content, {(CLUSTER, c) for c in model.clusters}, model.bad and not healed)
                )
                resources.append(resource(SCOPED_ROUTES, f"g/{name}", 0, {(ROUTES, name)}))
        if any(self.models):
            resources.append(resource(LISTENER, "g", 0))
        for name, (content, endpoints, bad) in zip(CLUSTERS, self.clusters, strict=True):
            if name in used:
                resources.append(resource(CLUSTER, name, content, {(ENDPOINTS, name)}, bad and not healed))
                resources.append(resource(ENDPOINTS, name, endpoints))
        return Snapshot.of(revision, Audience(), resources)


seldom = st.integers(0, 9).map(lambda n: n == 9)
models = st.builds(Model, st.integers(0, 1), st.frozensets(st.sampled_from(CLUSTERS), min_size=1, max_size=2), seldom)
random_states = st.builds(
    RandomState,
    st.tuples(*(st.none() | models for _ in MODELS)),
    st.frozensets(st.sampled_from(CLUSTERS), max_size=2),
    st.tuples(*(st.tuples(st.integers(0, 1), st.integers(0, 1), seldom) for _ in CLUSTERS)),
)


class Histories(RuleBasedStateMachine):
    """A server's stream, a client, and the messages in flight between them."""

    variant = "delta"

    def __init__(self) -> None:
        super().__init__()
        self.client = Client(self.variant)
        self.revision = 0
        self.state: RandomState | None = None
        self.snapshot: Snapshot | None = None
        self.connect()

    def connect(self) -> None:
        self.stream = DeltaStream() if self.variant == "delta" else SotwStream()
        self.down: deque[bytes] = deque()
        self.events: list[Event] = []
        # By type: for each response that was refused on this stream, the versions by name that were new in it.
        self.refused: dict[str, list[dict[str, str]]] = {t: [] for t in ORDER}
        # By type: the versions by name that were ACKed on this stream.
        self.acked: dict[str, dict[str, str]] = {t: {} for t in ORDER}
        # By type: names that were in a refused response and not ACKed since. The client may have applied that response in
        # part.
        self.maybe_applied: dict[str, set[str]] = {t: set() for t in ORDER}
        # By type: names that the client requested on this stream, since their last refusal if there was one.
        self.requested: dict[str, set[str]] = {t: set() for t in ORDER}
        # By type: the names in its newest request. By nonce: the versions in each response that it has not answered yet.
        self.names: dict[str, set[str]] = {}
        self.sent: dict[str, dict[str, str]] = {}
        if self.snapshot is not None:
            self.take(self.stream.offer(self.snapshot))

    def take(self, events: list[Event]) -> None:
        self.events += events
        for data in self.stream.to_send():
            self.check_refused(data)
            self.down.append(data)

    def check_refused(self, data: bytes) -> None:
        """Check that a refused response is not sent again before one of its resources changes, and then not as a whole.

        There is one exception: a full state with something new contains everything that the client may use, even if it was
        never ACKed.
        """
        response = self.parsed(data)
        type_url = response.type_url
        latest = self.latest(type_url)
        contents = self.contents(response)
        self.sent[response.nonce] = contents
        news = {n: v for n, v in self.suspects(type_url, contents).items() if n not in self.requested[type_url]}
        refused = [batch for batch in self.refused[type_url] if {n: latest.get(n, "") for n in batch} == batch]
        for batch in refused:
            unacked = all(self.acked[type_url].get(n, v) == v for n, v in batch.items())
            if self.whole(type_url) and unacked and news.keys() - batch.keys():
                continue
            assert not batch.items() <= news.items(), f"{sorted(batch)} was refused, and comes again"
        self.refused[type_url] = refused

    def whole(self, type_url: str) -> bool:
        return self.variant == "sotw" and type_url in FULL_STATE

    def suspects(self, type_url: str, contents: dict[str, str]) -> dict[str, str]:
        """Return the resources of a response that may be the cause of its NACK: name and version, "" for a removal.

        These are the resources that differ from what was ACKed. And those that were ACKed, then refused with other content,
        and are now restored: the client may have applied the other content, so restoring them is a change too.
        """
        acked, maybe_applied, latest = self.acked[type_url], self.maybe_applied[type_url], self.latest(type_url)
        gone = dict.fromkeys(acked.keys() - contents.keys(), "") if self.whole(type_url) else {}
        answers = {n for n in maybe_applied & contents.keys() if contents[n] == latest.get(n, "")}
        return gone | {n: v for n, v in contents.items() if acked.get(n) != v or n in answers}

    def latest(self, type_url: str) -> dict[str, str]:
        assert self.snapshot is not None
        return {n: r.version for n, r in self.snapshot.resources[type_url].items()}

    def parsed(self, data: bytes) -> Any:
        delta = self.variant == "delta"
        return (discovery_pb2.DeltaDiscoveryResponse if delta else discovery_pb2.DiscoveryResponse).FromString(data)

    def contents(self, response: Any) -> dict[str, str]:
        if self.variant == "delta":
            return {r.name: r.version for r in response.resources} | dict.fromkeys(response.removed_resources, "")
        return {json.loads(r.value)["name"]: Resource.of(r.type_url, "", r.value).version for r in response.resources}

    # -------------------------------------------------------------------------------------------------------- rules

    @rule(state=random_states)
    def offer(self, state: RandomState) -> None:
        self.revision += 1
        self.state = state
        self.snapshot = state.snapshot(self.revision)
        self.take(self.stream.offer(self.snapshot))

    @rule(count=st.integers(1, 6))
    def requests_arrive(self, count: int) -> None:
        for _ in range(count):
            if self.client.outbox:
                request = self.client.outbox.popleft()
                self.asks(request)
                events = self.stream.receive(request)
                # A second request with the same nonce only changes the names.
                answered = self.sent.pop(request.response_nonce, None)
                acked, names = self.acked[request.type_url], self.names[request.type_url]
                if any(isinstance(e, Refused) for e in events):
                    news = self.suspects(request.type_url, answered or {})
                    self.refused[request.type_url] += [news] if news else []
                    self.requested[request.type_url] -= news.keys()
                    self.maybe_applied[request.type_url] |= news.keys()
                elif answered is not None and not request.HasField("error_detail"):
                    if self.whole(request.type_url):
                        acked.clear()
                        self.maybe_applied[request.type_url].clear()
                    # The client does not take a name from which it has unsubscribed meanwhile.
                    acked.update(
                        {n: v for n, v in answered.items() if n in names or "*" in names or self.whole(request.type_url)}
                    )
                    self.maybe_applied[request.type_url] -= answered.keys()
                self.take(events)

    def asks(self, request: Any) -> None:
        """Note which names a request adds and drops."""
        type_url = request.type_url
        if self.variant == "delta":
            dropped = set(request.resource_names_unsubscribe)
            self.requested[type_url].update(request.resource_names_subscribe)
            self.names[type_url] = self.names.get(type_url, set()).union(request.resource_names_subscribe) - dropped
        else:
            names, before = set(request.resource_names), self.names.get(type_url, set())
            dropped = before - names
            self.requested[type_url] |= names - before
            self.names[type_url] = names
        # A client has no resource that it has unsubscribed from, and its NACKs of it are requested.
        for name in dropped:
            self.acked[type_url].pop(name, None)
            self.maybe_applied[type_url].discard(name)
        self.refused[type_url] = [batch for batch in self.refused[type_url] if not batch.keys() & dropped]

    @rule(count=st.integers(1, 6))
    def responses_arrive(self, count: int) -> None:
        for _ in range(count):
            if self.down:
                self.client.take(self.down.popleft())

    @rule(name=st.sampled_from(CLUSTERS))
    def client_forgets_endpoints(self, name: str) -> None:
        self.client.forget(ENDPOINTS, name)

    @rule(name=st.sampled_from(MODELS))
    def client_forgets_a_route(self, name: str) -> None:
        self.client.forget(ROUTES, name)

    @rule()
    def all_arrives(self) -> None:
        for _ in range(500):
            self.requests_arrive(1)
            self.responses_arrive(1)
            if not self.down and not self.client.outbox:
                return
        raise AssertionError("client and server still send after 500 messages each")

    @rule()
    def some_time_passes(self) -> None:
        self.take(self.stream.retry_in_parts())

    @rule()
    def client_reconnects(self) -> None:
        self.connect()
        self.client.connect()

    def teardown(self) -> None:
        """Offer a last snapshot without bad resources, and check that the client ends up with exactly that."""
        self.all_arrives()
        if self.state is None:
            return
        self.revision += 1
        self.snapshot = self.state.snapshot(self.revision, healed=True)
        self.take(self.stream.offer(self.snapshot))
        self.all_arrives()
        # A client that reconnected without scopes asks for no routes, and so never tells that it holds none.
        self.take(self.stream.assume_complete())
        self.all_arrives()
        for type_url in ORDER:
            has = {n: h.version for n, h in self.client.types[type_url].has.items()}
            assert has == self.latest(type_url), type_url
        assert not any(h.warming for h in self.client.types[CLUSTER].has.values())
        assert self.events[-1] == Held(self.revision)
        assert not self.stream.to_send()


class SotwHistories(Histories):
    variant = "sotw"


def run(machine: type[Histories], examples: int) -> None:
    limits = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=limits)


@pytest.mark.parametrize("machine", [Histories, SotwHistories], ids=["delta", "sotw"])
def test_random_histories(machine: type[Histories]) -> None:
    run(machine, 150)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("machine", [Histories, SotwHistories], ids=["delta", "sotw"])
def test_random_histories_at_length(machine: type[Histories]) -> None:
    run(machine, 5_000)
