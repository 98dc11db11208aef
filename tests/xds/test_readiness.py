"""The rules for clusters in place, warmed clusters, and resources that are still used."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, NAMED_BY, ROUTES, SCOPED_ROUTES, SECRET
from controlplane.snapshot import DiffCache, Resource, Resources
from controlplane.xds.readiness import Everything, in_place, still_used
from controlplane.xds.refusals import Batch, unseen
from controlplane.xds.subscription import Subscription


class Client:
    """A `ClientView` whose subscriptions and resources the test sets."""

    def __init__(self, *latest: Resource) -> None:
        self.latest: dict[str, dict[str, Resource]] = {}
        for r in latest:
            self.latest.setdefault(r.type_url, {})[r.name] = r
        self.subs: dict[str, list[Subscription]] = {}
        self.asked_in_time = False
        self.returning = False

    def subscribe(self, type_url: str, *names: str) -> Subscription:
        sub = Subscription(type_url, DiffCache())
        sub.subscribe(names or ("*",))
        sub.set_latest(self.should_hold(type_url))
        self.subs.setdefault(type_url, []).append(sub)
        return sub

    def holds(self, sub: Subscription, *names: str) -> None:
        for name in names:
            sub.held.set(name, sub.latest[name])

    def subscriptions_to(self, type_url: str) -> Sequence[Subscription]:
        return self.subs.get(type_url, ())

    def parent_subscriptions(self, parent: str, child: str) -> Sequence[Subscription]:
        return self.subscriptions_to(parent)

    def should_hold(self, type_url: str) -> Resources:
        return self.latest.get(type_url, {})

    def had_time(self, type_url: str, name: str) -> bool:
        return self.asked_in_time


def resource(type_url: str, name: str, *refs: tuple[str, str], content: str = "1") -> Resource:
    return Resource.of(type_url, name, content.encode(), refs)


ROUTE = resource(ROUTES, "r", (CLUSTER, "a"))
WARMED = resource(CLUSTER, "a", (ENDPOINTS, "a"), (SECRET, "key"))
LATEST = (ROUTE, WARMED, resource(ENDPOINTS, "a"), resource(SECRET, "key"))


def test_a_route_waits_for_the_ack_of_its_cluster() -> None:
    client = Client(ROUTE, resource(CLUSTER, "a"))
    clusters = client.subscribe(CLUSTER)
    assert not in_place(client, ROUTE)
    client.holds(clusters, "a")
    assert in_place(client, ROUTE)


def test_a_cluster_is_warmed_by_its_endpoints_and_its_secrets() -> None:
    client = Client(*LATEST)
    client.holds(client.subscribe(CLUSTER), "a")
    assert in_place(client, ROUTE)  # the client asks for neither type
    endpoints, secrets = client.subscribe(ENDPOINTS, "a"), client.subscribe(SECRET, "key")
    assert not in_place(client, ROUTE)
    client.holds(endpoints, "a")
    assert not in_place(client, ROUTE)
    client.holds(secrets, "key")
    assert in_place(client, ROUTE)


def test_endpoints_that_are_to_be_sent_again_do_not_warm_a_cluster() -> None:
    client = Client(*LATEST)
    client.holds(client.subscribe(CLUSTER), "a")
    endpoints = client.subscribe(ENDPOINTS, "a")
    client.holds(endpoints, "a")
    endpoints.resend.add("a")
    assert not in_place(client, ROUTE)


def test_a_cluster_whose_removal_is_in_flight_or_was_refused_is_not_in_place() -> None:
    client = Client(ROUTE, resource(CLUSTER, "a"))
    clusters = client.subscribe(CLUSTER)
    client.holds(clusters, "a")
    clusters.sent("1", Batch(1, {"a": None}))
    assert not in_place(client, ROUTE)
    clusters.nack("1", "no")
    assert not in_place(client, ROUTE)


def test_a_cluster_is_in_place_at_any_version() -> None:
    client = Client(ROUTE, resource(CLUSTER, "a", content="2"))
    clusters = client.subscribe(CLUSTER)
    clusters.held.set("a", resource(CLUSTER, "a"))
    assert in_place(client, ROUTE)
    clusters.sent("1", Batch(1, {"a": clusters.latest["a"]}))
    clusters.nack("1", "no")
    assert in_place(client, ROUTE)


def test_a_route_does_not_wait_for_a_client_that_had_time_to_ask() -> None:
    client = Client(*LATEST)
    client.holds(client.subscribe(CLUSTER), "a")
    client.subscribe(ENDPOINTS, "other")
    assert not in_place(client, ROUTE)
    client.asked_in_time = True
    assert in_place(client, ROUTE)


def test_routes_do_not_wait_at_a_client_that_names_its_clusters() -> None:
    client = Client(ROUTE, resource(CLUSTER, "a"))
    client.subscribe(CLUSTER, "b")
    assert in_place(client, ROUTE)


def test_a_cluster_is_in_place_if_one_of_several_streams_has_it() -> None:
    client = Client(*LATEST)
    for _ in range(2):
        client.subscribe(CLUSTER)
        client.subscribe(ENDPOINTS, "a")
    client.holds(client.subs[CLUSTER][1], "a")
    assert not in_place(client, ROUTE)
    client.holds(client.subs[ENDPOINTS][0], "a")
    assert in_place(client, ROUTE)


def test_an_aggregate_cluster_is_in_place_when_its_clusters_are() -> None:
    """Also if two clusters name each other, which Envoy would refuse."""
    top = resource(CLUSTER, "top", (CLUSTER, "a"))
    a = resource(CLUSTER, "a", (ENDPOINTS, "a"), (CLUSTER, "top"))
    route = resource(ROUTES, "r", (CLUSTER, "top"))
    client = Client(route, top, a, resource(ENDPOINTS, "a"))
    clusters, endpoints = client.subscribe(CLUSTER), client.subscribe(ENDPOINTS, "a")
    client.holds(clusters, "top")
    assert not in_place(client, route)
    client.holds(clusters, "a")
    assert not in_place(client, route)
    client.holds(endpoints, "a")
    assert in_place(client, route)


@pytest.mark.parametrize("type_url", [CLUSTER, ENDPOINTS, SECRET, LISTENER, SCOPED_ROUTES])
def test_resources_that_name_no_cluster_wait_for_nothing(type_url: str) -> None:
    client = Client()
    client.subscribe(CLUSTER)
    assert in_place(client, resource(type_url, "x", *([(CLUSTER, "none")] if type_url == CLUSTER else [])))


# ---------------------------------------------------------------------------------------------------------- still used

PAIRS = [(parent, child) for child, parents in NAMED_BY.items() for parent in parents]


@pytest.mark.parametrize(("parent", "child"), PAIRS)
def test_a_named_resource_is_used_until_the_client_holds_its_replacement(parent: str, child: str) -> None:
    old, new = resource(parent, "p", (child, "old")), resource(parent, "p", (child, "new"), content="2")
    client = Client(new)
    sub = client.subscribe(parent)
    sub.held.set("p", old)
    assert "old" in still_used(client, child)
    sub.sent("1", Batch(1, {"p": new}))
    assert "old" in still_used(client, child)
    sub.ack("1")
    assert "old" not in still_used(client, child)
    assert "new" not in still_used(client, child)  # the newest snapshot has it, so nothing removes it


def test_resources_that_a_refused_route_or_one_in_flight_names_are_used() -> None:
    older, old, new = (resource(ROUTES, "r", (CLUSTER, c), content=c) for c in ("older", "old", "new"))
    client = Client(new)
    routes = client.subscribe(ROUTES, "r")
    routes.sent("1", Batch(1, {"r": older}))
    assert "older" in still_used(client, CLUSTER)
    routes.nack("1", "no")
    assert "older" in still_used(client, CLUSTER)
    routes.sent("2", Batch(2, {"r": old}))
    routes.nack("2", "no")
    assert {"older", "old"} == {c for c in ("older", "old", "new") if c in still_used(client, CLUSTER)}
    routes.sent("3", Batch(3, {"r": new}))
    routes.ack("3")
    assert "older" not in still_used(client, CLUSTER)


def test_a_resource_of_unknown_content_may_name_everything() -> None:
    client = Client(ROUTE)
    routes = client.subscribe(ROUTES, "r")
    routes.held.set("r", unseen(ROUTES, "r", "of an earlier stream"))
    assert "anything" in still_used(client, CLUSTER)


def test_a_returning_client_may_hold_types_that_it_has_not_asked_for() -> None:
    client = Client()
    assert "a" not in still_used(client, CLUSTER)
    client.returning = True
    assert "a" in still_used(client, CLUSTER)
    client.subscribe(ROUTES, "r")
    client.subscribe(LISTENER)
    assert "a" not in still_used(client, CLUSTER)


def test_a_client_that_names_its_clusters_uses_the_old_ones_until_it_has_the_new() -> None:
    client = Client(ROUTE, resource(CLUSTER, "a"))
    clusters, routes = client.subscribe(CLUSTER, "old"), client.subscribe(ROUTES, "r")
    client.subscribe(LISTENER)
    client.holds(routes, "r")
    assert isinstance(still_used(client, CLUSTER), Everything)
    client.asked_in_time = True
    assert "old" not in still_used(client, CLUSTER)  # it has not asked for the new one, and had time to
    client.asked_in_time = False
    clusters.subscribe(["a"])
    assert "old" in still_used(client, CLUSTER)
    client.holds(clusters, "a")
    assert "old" not in still_used(client, CLUSTER)


# --------------------------------------------------------------------------------------------------- aggregate clusters

AGGREGATE = resource(CLUSTER, "top", (CLUSTER, "a"), (CLUSTER, "b"))


def test_an_aggregate_cluster_that_is_replaced_waits_for_its_new_clusters() -> None:
    client = Client(AGGREGATE, resource(CLUSTER, "a"), resource(CLUSTER, "b"))
    clusters = client.subscribe(CLUSTER)
    assert in_place(client, AGGREGATE)  # it is new: its routes wait
    clusters.held.set("top", resource(CLUSTER, "top", (CLUSTER, "a"), content="0"))
    client.holds(clusters, "a")
    assert not in_place(client, AGGREGATE)
    client.holds(clusters, "b")
    assert in_place(client, AGGREGATE)


def test_the_clusters_of_a_removed_aggregate_are_used_as_long_as_it_is() -> None:
    route = resource(ROUTES, "r", (CLUSTER, "a"), content="2")
    client = Client(route, resource(CLUSTER, "a"))
    clusters, routes = client.subscribe(CLUSTER), client.subscribe(ROUTES, "r")
    client.holds(clusters, "a")
    for old in (AGGREGATE, resource(CLUSTER, "b")):
        clusters.held.set(old.name, old)
    routes.held.set("r", resource(ROUTES, "r", (CLUSTER, "top")))
    assert {"top", "b"} <= set(still_used(client, CLUSTER))  # type: ignore[call-overload]
    client.holds(routes, "r")
    assert not {"top", "b"} & set(still_used(client, CLUSTER))  # type: ignore[call-overload]


def test_a_removed_cluster_of_unknown_content_does_not_keep_itself() -> None:
    client = Client(resource(CLUSTER, "a"))
    clusters = client.subscribe(CLUSTER)
    for parent in (ROUTES, LISTENER):
        client.subscribe(parent)
    clusters.held.set("old", unseen(CLUSTER, "old", "of an earlier stream"))
    assert "old" not in still_used(client, CLUSTER)
