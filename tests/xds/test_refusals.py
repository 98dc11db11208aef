"""NACKs: which resources are suspects, and what is tried again (rule 8). Transcripts `08-*` show the conversations."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.envoy_types import CLUSTER, ENDPOINTS
from controlplane.snapshot import Audience, DiffCache, Resource, Snapshot
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Refused
from controlplane.xds.overlay import Overlay
from controlplane.xds.refusals import ANYTHING, Batch, Refusals, unseen
from tests.xds.rig import ask, many, responses


def refusing(first: Snapshot, *more: Snapshot) -> DeltaStream:
    """Return a stream whose client has refused each of these snapshots except the last one, which was not sent yet."""
    stream = DeltaStream()
    stream.offer(first)
    stream.receive(ask(CLUSTER))
    for snapshot in more:
        (response,) = responses(stream)
        stream.receive(ask(CLUSTER, response.nonce, error_detail={"message": "no"}))
        stream.offer(snapshot)
    return stream


def test_the_refused_contents_of_a_name_are_bounded() -> None:
    stream = refusing(*(many(revision, 2, first=revision) for revision in range(1, 101)))
    assert all(len(r.earlier) < 10 for r in stream._subscriptions[CLUSTER].refused.values())


def test_contents_that_are_refused_in_turn_are_kept_once_each() -> None:
    stream = refusing(*(many(revision, 1, first=revision % 2) for revision in range(1, 21)))
    assert [len(r.contents()) for r in stream._subscriptions[CLUSTER].refused.values()] == [2]


@pytest.mark.parametrize("count", [2, 3, 7, 64, 100])
def test_the_good_resources_of_a_refused_response_are_found_in_bounds(count: int) -> None:
    """One of many is bad. The others end up held. The bad one is sent log2(n) times or so, each time with fewer others."""
    for bad in {0, count // 2, count - 1}:
        snapshot = Snapshot.of(1, Audience(), [Resource.of(ENDPOINTS, f"n{i:03}", b"x") for i in range(count)])
        stream = DeltaStream()
        stream.offer(snapshot)
        stream.receive(ask(ENDPOINTS, names=sorted(snapshot.resources[ENDPOINTS])))
        held: set[str] = set()
        sizes: list[int] = []
        for _ in range(2):
            while sent := responses(stream):
                names = {r.name for r in sent[0].resources}
                if f"n{bad:03}" in names:
                    sizes.append(len(names))
                    stream.receive(ask(ENDPOINTS, sent[0].nonce, error_detail={"message": "no"}))
                else:
                    held |= names
                    stream.receive(ask(ENDPOINTS, sent[0].nonce))
            stream.retry_in_parts()
        assert held == {f"n{i:03}" for i in range(count) if i != bad}
        assert sizes == sorted(set(sizes), reverse=True)
        assert len(sizes) <= 2 + math.log2(count)
        assert responses(stream) == []


def test_a_long_error_message_is_cut_off() -> None:
    stream = DeltaStream()
    stream.offer(many(1, 2))
    stream.receive(ask(CLUSTER))
    (response,) = responses(stream)
    (refused,) = stream.receive(ask(CLUSTER, response.nonce, error_detail={"message": "x" * 1_000_000}))
    assert isinstance(refused, Refused)
    assert len(refused.message) < 5_000


def cluster(name: str, content: str = "1") -> Resource:
    return Resource.of(CLUSTER, name, content.encode())


def holding(*resources: Resource) -> Overlay:
    held = Overlay(DiffCache())
    held.replace({r.name: r for r in resources})
    return held


def refusing_batch(held: Overlay, *resources: Resource, full_state: bool = False) -> tuple[Refusals, Batch]:
    """Return the refusals, and the batch, after a NACK of a response with these resources."""
    refusals, batch = Refusals(), Batch(1, {r.name: r for r in resources}, full_state)
    latest = {r.name: r for r in resources}
    refusals.add(refusals.suspect(batch, latest, held, True), batch, "no", 1.0)
    return refusals, batch


def test_a_held_resource_is_no_suspect() -> None:
    refusals, batch = refusing_batch(holding(cluster("a")), cluster("a"), cluster("b"))
    assert batch.suspects == {"b"}
    assert set(refusals) == {"b"}


def test_a_batch_stands_until_one_of_its_resources_changes() -> None:
    held = holding()
    refusals, _ = refusing_batch(held, cluster("a"), cluster("b"))
    latest = {"a": cluster("a"), "b": cluster("b")}
    refusals.set_latest(latest, held)
    assert refusals.stands("a", latest["a"])
    assert refusals.stands("b", latest["b"])
    latest = {"a": cluster("a"), "b": cluster("b", "2")}
    refusals.set_latest(latest, held)
    assert not refusals.stands("b", latest["b"])  # another content
    assert not refusals.stands("a", latest["a"])  # worth another try
    changes: dict[str, Resource | None] = {"a": latest["a"], "b": latest["b"]}
    assert refusals.portion(changes, (), held, True) == {"b": latest["b"]}


def test_remaining_resources_are_tried_in_halves_by_retry_in_parts() -> None:
    held = holding()
    resources = [cluster(n) for n in "abcde"]
    refusals, _ = refusing_batch(held, *resources)
    latest = {r.name: r for r in resources}
    changes: dict[str, Resource | None] = dict(latest)
    refusals.retry_in_parts(latest, held, True)
    assert set(refusals.portion(changes, (), held, True)) == {"a", "b", "c"}
    assert set(refusals.portion({n: latest[n] for n in "de"}, (), held, True)) == {"d"}
    assert refusals.portion({"d": latest["d"]}, ("d",), held, True) == {"d": latest["d"]}  # the client requests it


def test_a_full_state_is_not_tried_in_parts_if_the_client_may_use_unacked_resources() -> None:
    for uses_unacked in (True, False):
        held = holding()
        refusals, batch = refusing_batch(held, cluster("a"), cluster("b"), full_state=True)
        refusals.retry_in_parts({"a": cluster("a"), "b": cluster("b")}, held, uses_unacked)
        assert batch.split is not uses_unacked


def test_an_ack_of_other_content_replaces_the_refused_content() -> None:
    held = holding(cluster("a", "old"))
    refusals, _ = refusing_batch(held, cluster("a", "bad"))
    refusals.acked(Batch(2, {"a": cluster("a", "old")}), {"a": cluster("a", "bad")})
    assert refusals["a"].replaced
    refusals.set_latest({"a": cluster("a", "old")}, held)
    assert not refusals  # the change was undone
    refusals, _ = refusing_batch(held, cluster("a", "bad"))
    refusals.acked(Batch(2, {"a": cluster("a", "good")}), {"a": cluster("a", "good")})
    assert not refusals


def test_after_a_refused_removal_the_resource_may_be_gone() -> None:
    held, refusals, batch = holding(cluster("a")), Refusals(), Batch(1, {"a": None})
    refusals.add(refusals.suspect(batch, {}, held, True), batch, "no", 1.0)
    assert refusals.may_be_gone("a")
    assert refusals["a"].contents() == ()


def test_unseen_content_may_name_anything() -> None:
    assert unseen(CLUSTER, "a", "v").refs == {ANYTHING}


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40))
def test_at_most_eight_refused_contents_are_kept(contents: list[int]) -> None:
    refusals, held = Refusals(), holding()
    for content in contents:
        batch = Batch(1, {"a": cluster("a", str(content))})
        refusals.add(refusals.suspect(batch, {}, held, True), batch, "no", 1.0)
        remembered = refusals["a"].contents()
        assert 1 <= len(remembered) <= 8
        assert len({r.version for r in remembered}) == len(remembered)
        assert remembered[-1].version == cluster("a", str(content)).version or ANYTHING in remembered[-1].refs
