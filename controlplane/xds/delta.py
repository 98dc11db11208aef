"""Delta: one stream of DeltaDiscoveryRequests, without I/O ("Incremental xDS").

A request may be several things at once, and each part is taken for itself, in this order:

    part                                 means
    the first of its type                opens the sub-stream. No names: the legacy wildcard
    initial_resource_versions            (first only) what the client holds from an earlier stream. As in the snapshot: held.
                                         Other: held, but content that we have never seen. Not in the snapshot: to be removed
    response_nonce, no error_detail      ACK of that response
    response_nonce and error_detail      NACK of that response. Only `error_detail` makes it one
    resource_names_subscribe             adds names. Each is answered, also one that is held ("Subscribing to Resources"): with
                                         the resource, or in removed_resources, and is remembered
    resource_names_unsubscribe           drops names; phantom ones are harmless

A nonce that we don't know (stale, or of another stream) says nothing; the rest of the request counts all the same.
A name that exists but whose clusters are not in place yet is answered when they are (see `stream.py`).

Envoy's own: it brings along scopes of a listener that it refused, and asks for nothing when the next listener needs them: it
subscribes to them already. So that one has no routes. When the client takes a listener that it did not have, the scopes
whose routes it has not asked for are sent again (Envoy asks for what it needs of a listener before it ACKs it).
"""

from __future__ import annotations

from typing import Any, Self

from controlplane.envoy_types import LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Resource
from controlplane.xds import wire
from controlplane.xds.events import Event
from controlplane.xds.overlay import same
from controlplane.xds.stream import Stream
from controlplane.xds.subscription import Subscription, unseen


class DeltaStream(Stream):
    """One delta stream; see `Stream`."""

    FEATURES = (frozenset({"xds.config.supports-resource-ttl"}),)

    def __init__(self, type_url: str = "", ttl: int = 0) -> None:
        super().__init__(type_url, ttl)
        # By type URL: what a client said it holds, until there is a snapshot to compare it with.
        self._brought: dict[str, dict[str, str]] = {}

    def receive(self, request: Any) -> list[Event]:
        """Takes a DeltaDiscoveryRequest. Errors: INVALID_ARGUMENT, for what must end the stream."""
        sub, opens = self._substream(request.type_url)
        events = self._identify(request.node)
        if opens:
            known = dict(request.initial_resource_versions)
            sub.returning = bool(known)
            sub.subscribe(request.resource_names_subscribe, known)
            if not request.resource_names_subscribe and not request.resource_names_unsubscribe:
                sub.legacy_wildcard()
            sub.greet = sub.greet and not known
            self._brought[sub.type_url] = known
            self._point(sub)
            if sub.wildcard:  # before there is a snapshot, it is not known yet that the client holds these
                sub.asked.update(n for n in request.resource_names_unsubscribe if n in known)
        else:
            if request.HasField("error_detail"):
                events += sub.nack(request.response_nonce, request.error_detail.message)
            else:
                if sub.type_url == LISTENER and sub.is_news(request.response_nonce):
                    self._feed_listener()
                sub.ack(request.response_nonce)
            sub.subscribe(request.resource_names_subscribe)
        sub.unsubscribe(request.resource_names_unsubscribe)
        return events + self._advance()

    def fork(self) -> Self:
        """As of every stream."""
        other = super().fork()
        other._brought = dict(self._brought)
        return other

    def _feed_listener(self) -> None:
        """The client has taken a listener that it did not have: it must be told the scopes that it makes nothing of."""
        scopes, routes = self._subscriptions.get(SCOPED_ROUTES), self._subscriptions.get(ROUTES)
        if scopes is None:
            return
        for scope in scopes.holds():
            if any(t == ROUTES and not (routes and routes.covers(n)) for t, n in scope.refs):
                scopes.owed.add(scope.name)

    def _beat(self, type_url: str, version: str, nonce: str, resources: list[Resource]) -> bytes:
        return wire.delta_heartbeat(type_url, version, nonce, resources, self._ttl)

    def _point(self, sub: Subscription) -> None:
        super()._point(sub)
        if self._snapshot is None:
            return
        for name, version in self._brought.pop(sub.type_url, {}).items():
            if sub.covers(name):
                resource = sub.latest.get(name)
                given = unseen(sub.type_url, name, version)
                sub.held.set(name, resource if resource and same(resource, given) else given)

    def _send(self, sub: Subscription) -> bool:
        changes = self._changes(sub)
        if not changes and not sub.greet:
            return False
        assert self._snapshot is not None
        part: dict[str, Resource | None] = {}
        size = 0
        for name in sorted(changes):
            resource = changes[name]
            more = len(wire.delta_entry(resource, self._ttl)) if resource else len(name) * 4 + 8
            if part and size + more > wire.LIMIT:
                break  # the rest still differs, and so follows when this is ACKed
            size += more
            part[name] = resource
        nonce = self._sent(sub, part)
        resources = [r for r in part.values() if r]
        removed = [n for n, r in part.items() if r is None]
        version = self._snapshot.versions.get(sub.type_url, "")
        self._out.append(wire.delta_response(sub.type_url, version, nonce, resources, removed, self._ttl))
        return True
