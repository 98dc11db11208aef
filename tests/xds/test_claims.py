"""Claims of a returning client."""

from __future__ import annotations

from controlplane.envoy_types import CLUSTER, ENDPOINTS, ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Audience, DiffCache, Resource, Snapshot
from controlplane.versions import VersionIndex
from controlplane.xds.claims import delta_claim, sotw_claim
from controlplane.xds.events import Claimed
from controlplane.xds.subscription import Subscription


def snapshot(revision: int, *contents: str) -> Snapshot:
    """Return a snapshot with clusters and routes `NAME=CONTENT`."""
    pairs = [c.partition("=")[::2] for c in contents]
    return Snapshot.of(
        revision, Audience(), [Resource.of(t, n, f"{n}={c}".encode()) for t in (CLUSTER, ROUTES) for n, c in pairs]
    )


OLD, NEW = snapshot(1, "a=1", "b=1"), snapshot(2, "a=1", "c=1")


def indexed(*snapshots: Snapshot) -> VersionIndex:
    index = VersionIndex()
    for s in snapshots:
        index.add(s, 1.0)
    return index


def subscription(type_url: str, *names: str) -> Subscription:
    """Return a subscription to names, or without any to the whole type, at the newer snapshot."""
    sub = Subscription(type_url, DiffCache())
    if names:
        sub.subscribe(names)
    else:
        sub.legacy_wildcard()
    sub.set_latest(NEW.resources[type_url])
    return sub


def versions(snapshot: Snapshot, type_url: str) -> dict[str, str]:
    return {n: r.version for n, r in snapshot.resources[type_url].items()}


def test_a_delta_client_claims_all_names_if_one_is_not_the_newest() -> None:
    sub, index = subscription(CLUSTER), indexed(OLD, NEW)
    assert delta_claim(sub, versions(NEW, CLUSTER), index) is None
    assert delta_claim(sub, {"a": versions(NEW, CLUSTER)["a"]}, index) is None
    assert delta_claim(sub, versions(OLD, CLUSTER), index) == Claimed(CLUSTER, frozenset("ab"))
    foreign = {**versions(NEW, CLUSTER), "z": "0123456789abcdef"}
    assert delta_claim(sub, foreign, index) == Claimed(CLUSTER, frozenset("acz"), "0123456789abcdef")


def test_an_upgrade_that_compiles_other_bytes_is_no_other_history() -> None:
    """The client holds what the earlier version compiled. The index has survived the upgrade."""
    upgraded = snapshot(2, "a=other bytes", "c=other bytes")
    index = VersionIndex()
    index.load(e for e in indexed(NEW).entries().values() if e is not None)
    index.add(upgraded, 2.0)
    for type_url in (CLUSTER, ROUTES):
        sub = subscription(type_url)
        sub.set_latest(upgraded.resources[type_url])
        assert delta_claim(sub, versions(NEW, type_url), index) == Claimed(type_url, frozenset("ac"))
        version, newest = NEW.versions[type_url], upgraded.versions[type_url]
        assert sotw_claim(sub, version, newest, index) == Claimed(type_url, frozenset("ac"))


def test_only_listeners_clusters_and_routes_show_another_history() -> None:
    index = indexed(OLD, NEW)
    assert delta_claim(subscription(SCOPED_ROUTES), {"s": "f"}, index) == Claimed(SCOPED_ROUTES, frozenset("s"))
    assert sotw_claim(subscription(SCOPED_ROUTES), "f", "", index) == Claimed(SCOPED_ROUTES, None, version="f")
    assert delta_claim(subscription(ENDPOINTS), {"e": "f"}, index) is None
    assert sotw_claim(subscription(ENDPOINTS, "e"), "f", "", index) is None


def test_the_version_of_a_sotw_client_is_resolved_with_the_index() -> None:
    sub, newest = subscription(CLUSTER), NEW.versions[CLUSTER]
    index = indexed(OLD, NEW)
    assert sotw_claim(sub, newest, newest, index) is None
    assert sotw_claim(sub, "", newest, index) is None
    assert sotw_claim(sub, OLD.versions[CLUSTER], newest, index) == Claimed(CLUSTER, frozenset("ab"))
    old = OLD.versions[CLUSTER]
    assert sotw_claim(sub, old, newest, indexed(NEW)) == Claimed(CLUSTER, None, old, old)


def test_a_sotw_client_that_subscribes_to_names_holds_these_at_most() -> None:
    index = indexed(OLD, NEW)
    assert sotw_claim(subscription(ROUTES, "a", "q"), OLD.versions[ROUTES], "", index) == Claimed(ROUTES, frozenset("aq"))
    assert sotw_claim(subscription(ROUTES, "a"), "f", "", index) == Claimed(ROUTES, frozenset("a"), "f")
    # The index has no versions of parts of a snapshot.
    assert sotw_claim(subscription(CLUSTER, "a"), "f", "", index) == Claimed(CLUSTER, frozenset("a"))
    # Heartbeats have versions of their own.
    assert sotw_claim(subscription(ROUTES, "a"), "f", "", index, heartbeats=True) == Claimed(ROUTES, frozenset("a"))
