"""Decide whether a cluster is in place or warmed, and whether a resource is still used (rules 31 and 33).

The same functions serve a client with one stream and a client with several.

- A cluster is *in place* when the client has ACKed it, at any version, and it is warmed. Routes wait for that, because routes
  are not warmed. The version does not matter: a cluster that is replaced goes on serving as it was until the new one is warm.
  So a refused new cluster holds back the routes that need it.
- A cluster is *warmed* when the client has ACKed the resources that the cluster names: its endpoints, if they
  come over EDS, and its secrets. If the client asks for no resource of the type, nothing has to be there. If it asks for other
  resources of the type but not for this one, we wait until it had time to ask (`had_time`).
- A resource is *still used* when something that the client may hold, and should not, names it. The client may hold what it
  ACKed, what is in flight, and what was in a response that it refused (it may have applied a part). Endpoints are removed
  after their clusters, secrets after clusters and listeners, clusters after routes, listeners and the aggregate clusters that
  name them, routes after scopes and listeners (`envoy_types.NAMED_BY`).
- A returning client (`initial_resource_versions`) may hold resources that we have never seen. We can't know what they name. So
  while it holds one, or has not yet said what it holds of a type, nothing is removed that the type could name.

Routes wait for clusters only at clients that subscribe to all clusters (CDS with a wildcard: Envoys). gRPC clients name their
clusters, and ask for a cluster because a route names it (LDS, RDS, CDS, EDS). If the route waited, they would never ask. They
ACK a route before they have its clusters, and use the old clusters until then. So no cluster is removed before that.

A cluster that replaces one of the same name waits for the clusters that it names, because routes use it already. A new
aggregate cluster waits for nothing, because its routes wait for it and for its clusters.

A listener that replaces one of the same name waits until its new scopes were sent, but not for their ACK (rule 30). Otherwise
requests to its address would find no scope until the scopes arrive.

A `ClientView` hides whether a client has one stream or several: it says which subscriptions count, and whether the client had
time to ask. Resources of several streams arrive in any order, so `coordination.py` limits how long a used resource is kept.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Protocol

from controlplane.envoy_types import CLUSTER, LISTENER, NAMED_BY, ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Resource, Resources
from controlplane.xds.overlay import same
from controlplane.xds.refusals import ANYTHING
from controlplane.xds.subscription import Subscription


class ClientView(Protocol):
    """Everything that one client holds and subscribes to, as far as it is known."""

    def subscriptions_to(self, type_url: str) -> Sequence[Subscription]:
        """Return the client's subscriptions to a type."""

    def parent_subscriptions(self, parent: str, child: str) -> Sequence[Subscription]:
        """Return the subscriptions to type `parent` whose resources may name those of type `child`."""

    def should_hold(self, type_url: str) -> Resources:
        """Return all resources of a type in the newest snapshot."""

    def had_time(self, type_url: str, name: str) -> bool:
        """Return whether the client had time enough to ask for a resource."""

    @property
    def returning(self) -> bool:
        """Return whether the client holds resources from an earlier stream, and may still have to say which ones."""


class Everything(Container[str]):
    """All names."""

    def __contains__(self, name: object) -> bool:
        return True


def in_place(view: ClientView, resource: Resource) -> bool:
    """Return whether a resource's clusters are in place (rule 31), and a listener's new scopes were sent.

    Clusters that replace none of the same name wait for nothing.
    """
    if not resource.refs:
        return True
    if resource.type_url == CLUSTER:
        return not _replaces_one(view, resource) or all(
            _named_cluster_in_place(view, name, (resource.name,)) for type_url, name in resource.refs if type_url == CLUSTER
        )
    if resource.type_url == LISTENER and not _new_scopes_sent(view, resource):
        return False
    clusters = [s for s in view.parent_subscriptions(CLUSTER, resource.type_url) if s.wildcard]
    if clusters:
        # Loops instead of generators: this runs for every route of a push.
        for type_url, name in resource.refs:
            if type_url == CLUSTER:
                for sub in clusters:
                    if cluster_in_place(view, sub, name):
                        break
                else:
                    return False
    return True


def _replaces_one(view: ClientView, cluster: Resource) -> bool:
    """Return whether the client holds a cluster of the same name."""
    return any(sub.held.get(cluster.name) is not None for sub in view.subscriptions_to(CLUSTER))


def _new_scopes_sent(view: ClientView, listener: Resource) -> bool:
    """Return whether every new scope that a listener names was sent, if the client holds a listener of the same name.

    A listener names the first part of its scopes' names. A listener with a new name serves nobody yet, and the client may not
    ask for scopes before it has one.
    """
    prefixes = tuple(f"{name}/" for type_url, name in listener.refs if type_url == SCOPED_ROUTES)
    if not prefixes or not any(sub.held.get(listener.name) is not None for sub in view.subscriptions_to(LISTENER)):
        return True
    return not any(
        name.startswith(prefixes)
        and name in sub.latest
        and sub.covers(name)
        and not sub.stands(name)
        and not sub.current(name)
        for sub in view.subscriptions_to(SCOPED_ROUTES)
        for name in sub.held.differing(sub.latest)
    )


def cluster_in_place(view: ClientView, clusters: Subscription, name: str, above: tuple[str, ...] = ()) -> bool:
    """Return whether a cluster of this subscription is in place. `above` are the clusters whose references led to it."""
    cluster = clusters.held.get(name)
    if cluster is None or clusters.current(name) is None or clusters.refused.may_be_gone(name):
        return False  # it is not there, or its removal is in flight, or was refused
    for type_url, other in view.should_hold(CLUSTER).get(name, cluster).refs:
        if type_url != CLUSTER:
            if not _warmed(view, type_url, other):
                return False
        elif not _named_cluster_in_place(view, other, (*above, name)):
            return False
    return True


def _named_cluster_in_place(view: ClientView, name: str, above: tuple[str, ...]) -> bool:
    """Return whether a cluster that another cluster names is in place. An aggregate cluster names others."""
    if name in above or name not in view.should_hold(CLUSTER):
        return True
    return any(cluster_in_place(view, s, name, above) for s in view.subscriptions_to(CLUSTER))


def _warmed(view: ClientView, type_url: str, name: str) -> bool:
    """Return whether the client has endpoints or a secret that a cluster needs to be warmed."""
    subs = view.subscriptions_to(type_url)
    if not subs:
        return True
    for sub in subs:
        if sub.held.get(name) is not None and sub.current(name) is not None and name not in sub.resend:
            return True
    if name not in view.should_hold(type_url):
        return True
    return not any(sub.covers(name) for sub in subs) and view.had_time(type_url, name)


def still_used(view: ClientView, type_url: str) -> Container[str]:
    """Return the names of a type that the client may still use (rule 33): outdated resources that it may hold name them."""
    if type_url == CLUSTER and _taking_up_routes(view):
        return Everything()
    names: set[str] = set()
    parents = NAMED_BY.get(type_url, ())
    for parent in parents:
        if parent == type_url:
            continue
        subs = view.parent_subscriptions(parent, type_url)
        if not subs and view.returning:
            return Everything()
        for sub in subs:
            for resource in _outdated(sub, view.should_hold(parent)):
                if ANYTHING in resource.refs:
                    return Everything()
                names.update(n for t, n in resource.refs if t == type_url)
    if type_url in parents:
        names |= _named_by_own_type(view, type_url, names)
    return names


def _named_by_own_type(view: ClientView, type_url: str, used: set[str]) -> set[str]:
    """Return the resources of a type that outdated ones of the same type name: those of an aggregate cluster.

    An outdated resource counts if it is replaced, or is itself used. One that is removed and not used names nothing any more.
    Resources of unknown content are replaced or removed at once, so what they name is not waited for.
    """
    latest = view.should_hold(type_url)
    outdated = [r for sub in view.subscriptions_to(type_url) for r in _outdated(sub, latest)]
    return {n for r in outdated if r.name in latest or r.name in used for t, n in r.refs if t == type_url}


def _outdated(sub: Subscription, latest: Resources) -> Iterator[Resource]:
    """Yield the resources of a type that the client may hold, now or soon, and that differ from `latest`."""
    held = sub.held
    for name in set(held.differing(latest)) if held.base else held.over:
        if (content := held.get(name)) and not same(content, latest.get(name)):
            yield content
    for batch in sub.inflight.values():
        if batch.contents is not latest:
            yield from (c for n, c in batch.contents.items() if c and not same(c, latest.get(n)))
    for name, refusal in sub.refused.items():
        yield from refusal.earlier
        if refusal.content and not same(refusal.content, latest.get(name)):
            yield refusal.content


def _taking_up_routes(view: ClientView) -> bool:
    """Return whether a client that names its clusters lacks one that its routes name. Until then it uses the old ones."""
    clusters = view.subscriptions_to(CLUSTER)
    if not clusters or any(s.wildcard for s in clusters):
        return False
    wanted = view.should_hold(CLUSTER)
    routes = (r for sub in view.subscriptions_to(ROUTES) for name in sub.names if (r := sub.held.get(name)))
    return any(
        t == CLUSTER
        and n in wanted
        and not any(cluster_in_place(view, s, n) for s in clusters)
        and (any(s.covers(n) for s in clusters) or not view.had_time(CLUSTER, n))
        for r in routes
        for t, n in r.refs
    )
