"""SotW: one stream of DiscoveryRequests, without I/O ("Basic Protocol Overview").

The meaning of a request follows from its nonce alone. Its version means nothing, except on the first request of its type:

    response_nonce                   the request is
    (first request of its type)      the start of the sub-stream: names, or none: the legacy wildcard
    of the newest response           its ACK, or with `error_detail` its NACK; and the subscription as of now
    any other                        void: the client had not seen the newest response. It will answer that one, and its answer
                                     will have its subscription

`resource_names` is the whole subscription. Its new names are answered; the names that are gone the client has dropped.

    type                  a response carries                       a resource that is gone is
    CDS, LDS, SRDS        everything that the client should have   absent
    the others            what changed and what was requested      not mentioned: it follows from the resource that named it

So a resource that can't be sent now in a full state (its clusters are not in place, or it was refused) is in it as the client
last ACKed it. A resource that may not be removed yet stays in it. A first wildcard request is answered even if there is
nothing. So is a request for a name that does not exist. But absence alone is no answer to a client that asked for several
names, so the response lists the missing names (`resource_errors`, xRFC TP3). Clients that don't know that field wait until
their own timer ends, after 15 s.

Known flaws, of the protocol:
- A returning client says a version, not what it holds. If it is today's version of a full-state type, the client holds that;
  otherwise everything is sent. Then clusters that only its old routes name are removed before those routes: a resource that is
  not in the full state is deleted, and only history could tell which ones would have to be in it. The clusters can't wait
  until the routes are ACKed, because the new routes may need them.
- A full state can't be split, so it may be above 4 MiB, which the event `Oversized` reports. Envoy's own gRPC client takes
  that, google_grpc does not.
"""

from __future__ import annotations

from typing import Any, Self

from controlplane.envoy_types import FULL_STATE
from controlplane.snapshot import Resource, Resources, type_version
from controlplane.xds import wire
from controlplane.xds.context import Context
from controlplane.xds.events import Event, Oversized
from controlplane.xds.ordering import changes_to_send
from controlplane.xds.overlay import same
from controlplane.xds.refusals import Contents
from controlplane.xds.stream import Stream
from controlplane.xds.subscription import Subscription


class SotwStream(Stream):
    """One SotW stream; see `Stream`."""

    # The second set: the client can read a wrapped resource. The protocol's page and the list of client features name it
    # differently.
    FEATURES = (
        frozenset({"xds.config.supports-resource-ttl"}),
        frozenset({"xds.config.resource-in-sotw", "xds.config.supports-resource-in-sotw"}),
    )

    def __init__(self, type_url: str = "", ttl: int = 0, context: Context | None = None) -> None:
        """See `Stream`."""
        super().__init__(type_url, ttl, context)
        # By type URL: the version that a client came back with, until there is a snapshot to compare it with.
        self._brought: dict[str, str] = {}

    def receive(self, request: Any) -> list[Event]:
        """Take a DiscoveryRequest. Errors: INVALID_ARGUMENT for a request that must end the stream."""
        sub, opens = self._subscription_for(request.type_url)
        events = self._identify(request.node)
        if opens:
            self._brought[sub.type_url] = request.version_info
            sub.returning = bool(request.version_info)
        elif request.response_nonce != sub.last_nonce:
            return events
        elif request.HasField("error_detail"):
            events += sub.nack(request.response_nonce, request.error_detail.message)
        else:
            sub.ack(request.response_nonce)
        sub.set_names(set(request.resource_names))
        if opens:
            self._set_latest(sub)
        elif request.HasField("error_detail"):
            sub.requested = {n for n in sub.requested if not sub.stands(n)}  # it was just sent these, and refused them
        return events + self._advance()

    def fingerprint(self) -> tuple[object, ...] | None:
        """See `Stream`; the meaning of a request follows from the newest nonce as well."""
        fingerprint = super().fingerprint()
        return None if fingerprint is None else (*fingerprint, *(sub.last_nonce for sub in self._subscriptions.values()))

    def fork(self) -> Self:
        """See `Stream`."""
        other = super().fork()
        other._brought = dict(self._brought)
        return other

    def _heartbeat_message(self, type_url: str, version: str, nonce: str, resources: list[Resource]) -> bytes:
        return wire.sotw_heartbeat(type_url, version, nonce, resources, self._ttl)

    def _set_latest(self, sub: Subscription) -> None:
        super()._set_latest(sub)
        if self._snapshot is None:
            return
        brought = self._brought.pop(sub.type_url, "")
        comparable = sub.wildcard and not sub.requested and sub.type_url in FULL_STATE
        if comparable and brought and brought == self._snapshot.versions.get(sub.type_url):
            sub.held.replace(sub.latest)
            sub.answer_wildcard = False

    def _send(self, sub: Subscription) -> bool:
        if sub.inflight:
            return False
        if sub.requested and sub.type_url not in FULL_STATE:
            # A client may ask for any number of names that do not exist; nothing is sent about them.
            absent = sub.requested - sub.latest.keys()
            sub.requested -= {n for n in absent if n not in sub.refused and sub.held.get(n) is None}
        changes = changes_to_send(sub, self)
        if sub.type_url in FULL_STATE:
            return self._send_full_state(sub, changes) if changes or sub.answer_wildcard or sub.requested else False
        return self._send_some(sub, changes)

    def _send_full_state(self, sub: Subscription, changes: Contents) -> bool:
        assert self._snapshot is not None
        contents: Resources = sub.latest
        version = self._snapshot.versions.get(sub.type_url, "")
        chosen = {n: sub.held.get(n) for n in (*sub.held.differing(sub.latest), *sub.refused) if sub.covers(n)}
        if sub.uses_unacked:  # the client may have what it refused, and would drop what is absent
            chosen.update({n: sub.held.get(n) or sub.latest.get(n) for n in sub.refused if sub.covers(n)})
        chosen.update(changes)
        if not sub.wildcard or any(not same(r, sub.latest.get(n)) for n, r in chosen.items()):
            everything = {**{n: r for n, r in sub.latest.items() if sub.covers(n)}, **chosen}
            contents = {n: r for n, r in everything.items() if r is not None}
            version = type_version(contents.values())
        missing = [n for n in sorted(sub.requested) if n not in contents and n not in sub.latest]
        nonce = self._note_sent(sub, contents, full_state=True)
        response = self.context.encoder.sotw_response(sub.type_url, version, nonce, contents.values(), self._ttl)
        data = response + wire.sotw_missing(missing)
        if len(data) > wire.LIMIT:
            self._news.append(Oversized(sub.type_url, len(data)))
        self._out.append(data)
        return True

    def _send_some(self, sub: Subscription, changes: Contents) -> bool:
        assert self._snapshot is not None
        encoder = self.context.encoder
        sub.answer_wildcard = False  # an empty response means nothing here
        part: dict[str, Resource | None] = {}
        size = 0
        forgot = False
        for name in sorted(changes):
            resource = changes[name]
            if resource is None:
                sub.requested.discard(name)
                sub.refused.pop(name, None)
                forgot = forgot or sub.held.get(name) is not None
                sub.held.set(name, None)
                continue
            size += len(encoder.sotw_entry(resource, self._ttl))
            if part and size > wire.LIMIT:
                break  # the others still differ, and so follow when this is ACKed
            part[name] = resource
        if part:
            version = self._snapshot.versions.get(sub.type_url, "")
            nonce = self._note_sent(sub, part)
            resources = [r for r in part.values() if r]
            self._out.append(encoder.sotw_response(sub.type_url, version, nonce, resources, self._ttl))
        return bool(part) or forgot
