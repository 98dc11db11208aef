"""Send, remove or keep: each row of the table at the head of `ordering.py`."""

from __future__ import annotations

from collections.abc import Container

from hypothesis import given
from hypothesis import strategies as st

from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.snapshot import DiffCache, Resource
from controlplane.xds.ordering import changes_to_send
from controlplane.xds.overlay import same
from controlplane.xds.refusals import Batch, unseen
from controlplane.xds.subscription import Subscription


class Barrier:
    """A barrier with fixed answers."""

    def __init__(self, waits: Container[str] = (), used: Container[str] = ()) -> None:
        self.waits, self.used = waits, used

    def in_place(self, resource: Resource) -> bool:
        return resource.name not in self.waits

    def still_used(self, type_url: str) -> Container[str]:
        return self.used


def route(name: str, content: str = "1") -> Resource:
    return Resource.of(ROUTES, name, content.encode(), {(CLUSTER, content)})


def subscription(held: dict[str, str], latest: dict[str, str]) -> Subscription:
    """Return a wildcard subscription, with contents by name."""
    sub = Subscription(ROUTES, DiffCache())
    sub.wildcard = True
    sub.set_latest({n: route(n, c) for n, c in latest.items()})
    for name, content in held.items():
        sub.held.set(name, route(name, content))
    return sub


def contents(changes: dict[str, Resource | None]) -> dict[str, str]:
    return {n: r.body.decode() if r else "" for n, r in changes.items()}


def test_new_content_is_sent_when_its_clusters_are_in_place() -> None:
    sub = subscription({"a": "1", "b": "1"}, {"a": "2", "b": "2"})
    assert contents(changes_to_send(sub, Barrier(waits="b"))) == {"a": "2"}


def test_a_resource_is_removed_when_nothing_uses_it() -> None:
    sub = subscription({"a": "1", "b": "1"}, {})
    assert contents(changes_to_send(sub, Barrier(used="b"))) == {"a": ""}


def test_refused_content_is_not_sent_until_it_changes() -> None:
    sub = subscription({}, {"a": "2"})
    sub.sent("1", Batch(1, {"a": sub.latest["a"]}))
    sub.nack("1", "no")
    assert changes_to_send(sub, Barrier()) == {}
    sub.set_latest({"a": route("a", "3")})
    assert contents(changes_to_send(sub, Barrier())) == {"a": "3"}


def test_a_requested_name_is_answered_with_the_content_that_is_kept() -> None:
    sub = subscription({"a": "1", "b": "1", "c": "1", "d": "1"}, {"a": "2", "c": "1"})
    sub.requested.update("abcde")
    assert contents(changes_to_send(sub, Barrier(used="b"))) == {"a": "2", "b": "1", "c": "1", "d": "", "e": ""}


def test_a_requested_name_whose_clusters_are_not_in_place_is_answered_later() -> None:
    sub = subscription({}, {"a": "1"})
    sub.requested.add("a")
    assert changes_to_send(sub, Barrier(waits="a")) == {}
    assert contents(changes_to_send(sub, Barrier())) == {"a": "1"}


def test_unknown_content_does_not_answer_a_request() -> None:
    sub = subscription({}, {})
    sub.held.set("a", unseen(ROUTES, "a", "v"))
    sub.requested.add("a")
    assert changes_to_send(sub, Barrier(used="a")) == {}


def test_while_a_response_is_in_flight_only_what_is_requested_is_sent() -> None:
    sub = subscription({}, {"a": "1", "b": "1"})
    sub.sent("1", Batch(1, {"a": sub.latest["a"]}))
    assert changes_to_send(sub, Barrier()) == {}
    sub.requested.add("a")
    assert contents(changes_to_send(sub, Barrier())) == {"a": "1"}


def test_a_type_without_differences_becomes_idle() -> None:
    sub = subscription({"a": "1"}, {"a": "1"})
    assert changes_to_send(sub, Barrier()) == {}
    assert sub.idle
    assert sub.held.base is sub.latest
    sub.resend.add("a")
    assert contents(changes_to_send(sub, Barrier())) == {"a": "1"}


versions = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12"))
some = st.sets(st.sampled_from("abcd"))


@given(versions, versions, some, some)
def test_each_name_is_sent_removed_or_kept(
    held: dict[str, str], latest: dict[str, str], waits: set[str], used: set[str]
) -> None:
    sub = subscription(held, latest)
    changes = changes_to_send(sub, Barrier(waits, used))
    for name in "abcd":
        wanted = sub.latest.get(name)
        differs = not same(wanted, sub.held.get(name))
        kept = name in used if wanted is None else name in waits
        assert (name in changes) is (differs and not kept)
        if name in changes:
            assert changes[name] is wanted
