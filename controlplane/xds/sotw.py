"""SotW: one stream of DiscoveryRequests, without I/O ("Basic Protocol Overview").

What a request is follows from its nonce alone; its version says nothing, except on the first of its type:

    response_nonce                   the request is
    (first request of its type)      the start of the sub-stream: names, or none: the legacy wildcard
    of the newest response           its ACK, or with `error_detail` its NACK; and the subscription as of now
    anything else                    void: the client had not seen the newest response. It will answer that one, and
                                     says then what it wants

`resource_names` is the whole subscription. What is new in it is answered; what is gone from it the client has dropped.

    type                  a response carries                       a resource that is gone is
    CDS, LDS, SRDS        everything that the client should have   absent
    the others            what changed and what was asked for      not mentioned: it follows from what named it

So in a full state, what can't be sent now (its clusters are not in place, or it was refused) is there as the client last ACKed
it, and what may not be removed yet is there still. A first wildcard request is answered even with nothing. So is a name that
nothing has; but absence alone is no news to a client that asked for more than one thing, so the response says it too
(`resource_errors`, xRFC TP3). Clients that don't know of those wait until their own timer ends, 15 s.

Known flaws, of the protocol: a client that comes back says a version, not what it holds. If it is today's version of a
full-state type, that is what it holds; otherwise everything is sent, and clusters that only its old routes name go before
those do: what is not in the full state is deleted, and what would have to be in it only history could tell. To hold the
clusters back until the routes are ACKed would not do, since the new routes may need them. And a full state can't be split, so
it may pass 4 MiB, and `Oversized` tells: Envoy's own gRPC takes that, google_grpc does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from controlplane.envoy_types import FULL_STATE
from controlplane.snapshot import Resource, type_version
from controlplane.xds import wire
from controlplane.xds.events import Event, Oversized
from controlplane.xds.overlay import same
from controlplane.xds.stream import Stream
from controlplane.xds.subscription import Subscription


class SotwStream(Stream):
    """One SotW stream; see `Stream`."""

    # The second: can read a wrapped resource. The protocol's page and the list of client features differ on its name.
    FEATURES = (
        frozenset({"xds.config.supports-resource-ttl"}),
        frozenset({"xds.config.resource-in-sotw", "xds.config.supports-resource-in-sotw"}),
    )

    def __init__(self, type_url: str = "", ttl: int = 0) -> None:
        super().__init__(type_url, ttl)
        # By type URL: the version that a client came back with, until there is a snapshot to compare it with.
        self._brought: dict[str, str] = {}

    def receive(self, request: Any) -> list[Event]:
        """Takes a DiscoveryRequest. Errors: INVALID_ARGUMENT, for what must end the stream."""
        sub, opens = self._substream(request.type_url)
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
            self._point(sub)
        elif request.HasField("error_detail"):
            sub.asked = {n for n in sub.asked if not sub.stands(n)}  # it has just been given these, and refused them
        return events + self._advance()

    def fingerprint(self) -> tuple[object, ...] | None:
        """As of every stream; and what a request is follows from the newest nonce."""
        alike = super().fingerprint()
        return None if alike is None else (*alike, *(sub.last_nonce for sub in self._subscriptions.values()))

    def fork(self) -> Self:
        """As of every stream."""
        other = super().fork()
        other._brought = dict(self._brought)
        return other

    def _beat(self, type_url: str, version: str, nonce: str, resources: list[Resource]) -> bytes:
        return wire.sotw_heartbeat(type_url, version, nonce, resources, self._ttl)

    def _point(self, sub: Subscription) -> None:
        super()._point(sub)
        if self._snapshot is None:
            return
        brought = self._brought.pop(sub.type_url, "")
        comparable = sub.wildcard and not sub.asked and sub.type_url in FULL_STATE
        if comparable and brought and brought == self._snapshot.versions.get(sub.type_url):
            sub.held.replace(sub.latest)
            sub.greet = False

    def _send(self, sub: Subscription) -> bool:
        if sub.inflight:
            return False
        if sub.asked and sub.type_url not in FULL_STATE:
            # Nothing is said of names that are not there, of which a client may ask for any number.
            absent = sub.asked - sub.latest.keys()
            sub.asked -= {n for n in absent if n not in sub.refused and sub.held.get(n) is None}
        changes = self._changes(sub)
        if sub.type_url in FULL_STATE:
            return self._send_all(sub, changes) if changes or sub.greet or sub.asked else False
        return self._send_some(sub, changes)

    def _send_all(self, sub: Subscription, changes: Mapping[str, Resource | None]) -> bool:
        assert self._snapshot is not None
        contents: Mapping[str, Resource] = sub.latest
        version = self._snapshot.versions.get(sub.type_url, "")
        chosen = {n: sub.held.get(n) for n in (*sub.held.differing(sub.latest), *sub.refused) if sub.covers(n)}
        if sub.uses_unacked:  # what was refused it may have all the same, and what is absent it would drop
            chosen.update({n: sub.held.get(n) or sub.latest.get(n) for n in sub.refused if sub.covers(n)})
        chosen.update(changes)
        if not sub.wildcard or any(not same(r, sub.latest.get(n)) for n, r in chosen.items()):
            everything = {**{n: r for n, r in sub.latest.items() if sub.covers(n)}, **chosen}
            contents = {n: r for n, r in everything.items() if r is not None}
            version = type_version(contents.values())
        missing = [n for n in sorted(sub.asked) if n not in contents and n not in sub.latest]
        nonce = self._sent(sub, contents, whole=True)
        data = wire.sotw_response(sub.type_url, version, nonce, contents.values(), self._ttl) + wire.sotw_missing(missing)
        if len(data) > wire.LIMIT:
            self._news.append(Oversized(sub.type_url, len(data)))
        self._out.append(data)
        return True

    def _send_some(self, sub: Subscription, changes: Mapping[str, Resource | None]) -> bool:
        assert self._snapshot is not None
        sub.greet = False  # an empty answer says nothing here
        part: dict[str, Resource | None] = {}
        size = 0
        forgot = False
        for name in sorted(changes):
            resource = changes[name]
            if resource is None:
                sub.asked.discard(name)
                sub.refused.pop(name, None)
                forgot = forgot or sub.held.get(name) is not None
                sub.held.set(name, None)
                continue
            size += len(wire.sotw_entry(resource, self._ttl))
            if part and size > wire.LIMIT:
                break  # the rest still differs, and so follows when this is ACKed
            part[name] = resource
        if part:
            version = self._snapshot.versions.get(sub.type_url, "")
            nonce = self._sent(sub, part)
            resources = [r for r in part.values() if r]
            self._out.append(wire.sotw_response(sub.type_url, version, nonce, resources, self._ttl))
        return bool(part) or forgot
