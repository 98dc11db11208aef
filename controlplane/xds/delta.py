"""Delta: one stream of DeltaDiscoveryRequests, without I/O ("Incremental xDS").

A request may be several things at once. Each part is processed by itself, in this order:

    part                                 meaning
    the first request of its type        opens the subscription. Without names: the legacy wildcard
    initial_resource_versions            (first request only) what the client holds from an earlier stream. A version as in the
                                         snapshot: held. Another version: held, with unknown content. A name that is not in the
                                         snapshot: will be removed
    response_nonce, no error_detail      ACK of that response
    response_nonce and error_detail      NACK of that response. Only `error_detail` makes it one
    resource_names_subscribe             adds names. Each is answered, even if it is held ("Subscribing to Resources"): with
                                         the resource, or in removed_resources. In both cases it stays subscribed
    resource_names_unsubscribe           drops names. Names that were not subscribed to do no harm

An unknown nonce (stale, or of another stream) is ignored; the other parts of the request count all the same (rule 11).
A requested resource whose clusters are not in place yet is sent when they are (`ordering.py`).

A peculiarity of Envoy: it refuses a listener, but stays subscribed to its scopes. When the next listener needs the same
scopes, Envoy does not ask for them again, and that listener has no routes. Therefore, when the client ACKs a new listener, we
send again those scopes whose routes it has not asked for. (Envoy asks for everything that a listener needs before it ACKs the
listener.)
"""

from __future__ import annotations

from typing import Any, Self

from controlplane.envoy_types import LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Resource
from controlplane.xds import wire
from controlplane.xds.claims import delta_claim
from controlplane.xds.context import Context
from controlplane.xds.events import Event
from controlplane.xds.ordering import changes_to_send
from controlplane.xds.overlay import same
from controlplane.xds.refusals import unseen
from controlplane.xds.stream import Stream
from controlplane.xds.subscription import Subscription, held_resources


class DeltaStream(Stream):
    """One delta stream; see `Stream`."""

    FEATURES = (frozenset({"xds.config.supports-resource-ttl"}),)

    def __init__(self, type_url: str = "", ttl: int = 0, context: Context | None = None) -> None:
        """See `Stream`."""
        super().__init__(type_url, ttl, context)
        # By type URL: `initial_resource_versions`, until there is a snapshot to compare them with.
        self._initial_versions: dict[str, dict[str, str]] = {}

    def receive(self, request: Any) -> list[Event]:
        """Take a DeltaDiscoveryRequest (rules 7, 11, 12 and 28).

        Errors: INVALID_ARGUMENT for a request that must end the stream.
        """
        sub, is_first = self._subscription_for(request.type_url)
        events = self._identify(request.node)
        if is_first:
            known = dict(request.initial_resource_versions)
            sub.returning = bool(known)
            sub.subscribe(request.resource_names_subscribe, known)
            if not request.resource_names_subscribe and not request.resource_names_unsubscribe:
                sub.legacy_wildcard()
            sub.answer_wildcard = sub.answer_wildcard and not known
            self._initial_versions[sub.type_url] = known
            self._set_latest(sub)
            if sub.wildcard:  # without a snapshot, `unsubscribe` does not know yet that the client holds these
                sub.requested.update(n for n in request.resource_names_unsubscribe if n in known)
        else:
            if request.HasField("error_detail"):
                events += sub.nack(request.response_nonce, request.error_detail.message)
            else:
                if sub.type_url == LISTENER and _has_new_name(sub, request.response_nonce):
                    self._resend_scopes()
                sub.ack(request.response_nonce)
            sub.subscribe(request.resource_names_subscribe)
        sub.unsubscribe(request.resource_names_unsubscribe)
        return events + self._advance()

    def fork(self) -> Self:
        """See `Stream`."""
        other = super().fork()
        other._initial_versions = dict(self._initial_versions)
        return other

    def _resend_scopes(self) -> None:
        """Send again the scopes whose routes the client has not asked for; see the head of this file."""
        scopes, routes = self._subscriptions.get(SCOPED_ROUTES), self._subscriptions.get(ROUTES)
        if scopes is None:
            return
        for scope in held_resources(scopes):
            if any(t == ROUTES and not (routes and routes.covers(n)) for t, n in scope.refs):
                scopes.resend.add(scope.name)

    def _heartbeat_message(self, type_url: str, version: str, nonce: str, resources: list[Resource]) -> bytes:
        return wire.delta_heartbeat(type_url, version, nonce, resources, self._ttl)

    def _set_latest(self, sub: Subscription) -> None:
        """See `Stream`. At the first snapshot, compare it with `initial_resource_versions` (rule 27)."""
        super()._set_latest(sub)
        known = self._initial_versions.get(sub.type_url)
        if self._snapshot is None or known is None:
            return
        if known and (claim := delta_claim(sub, known, self.context.versions)) is not None:
            self._pending_events += self._hold.judge(claim, self._snapshot, self.context.versions)
        if not self._snapshot.revision or self._hold.active:
            return  # the client is compared with the first revision that it may be sent
        del self._initial_versions[sub.type_url]
        for name, version in known.items():
            if sub.covers(name):
                resource = sub.latest.get(name)
                unknown = unseen(sub.type_url, name, version)
                sub.held.set(name, resource if resource and same(resource, unknown) else unknown)

    def _send(self, sub: Subscription) -> bool:
        """See `Stream`. One response stays below 4 MiB (rule 24)."""
        changes = changes_to_send(sub, self)
        if not changes and not sub.answer_wildcard:
            return False
        assert self._snapshot is not None
        encoder = self.context.encoder
        part: dict[str, Resource | None] = {}
        size = 0
        for name in sorted(changes):
            resource = changes[name]
            more = len(encoder.delta_entry(resource, self._ttl)) if resource else len(name) * 4 + 8
            if part and size + more > wire.LIMIT:
                break  # the other changes are sent after the ACK of this part, because they still differ
            size += more
            part[name] = resource
        nonce = self._note_sent(sub, part)
        resources = [r for r in part.values() if r]
        removed = [n for n, r in part.items() if r is None]
        version = self._snapshot.versions.get(sub.type_url, "")
        self._out.append(encoder.delta_response(sub.type_url, version, nonce, resources, removed, self._ttl))
        return True


def _has_new_name(sub: Subscription, nonce: str) -> bool:
    """Return whether a response has a resource with a name under which the client holds nothing."""
    batch = sub.inflight.get(nonce)
    return batch is not None and any(r and sub.held.get(n) is None for n, r in batch.contents.items())
