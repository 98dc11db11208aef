"""SotW: one stream of DiscoveryRequests, without I/O ("Basic Protocol Overview").

Only the nonce decides what a request means. Its version is ignored, except on the first request of a type:

    response_nonce                   the request is
    (first request of its type)      opens the subscription. Without names: the legacy wildcard
    of the newest response           its ACK, or with `error_detail` its NACK; and the current subscription
    any other                        void (rule 11): the client had not seen the newest response. It will answer that one, and
                                     its answer will contain its subscription

`resource_names` is the whole subscription. New names are answered. The client has unsubscribed from names that are missing.

    type                  a response contains                      a resource that no longer exists is
    CDS, LDS, SRDS        everything that the client should have   absent
    the others            what changed and what was requested      not mentioned: it follows from the resource that named it

A full state contains every resource that the client should keep. If the newest version of one can't be sent now (its clusters
are not in place, or it was refused), the state contains the version that the client last ACKed. A resource that may not be
removed yet stays in the state.

A first wildcard request is answered even if there is nothing. So is a request for a name that does not exist. But absence
alone does not tell a client which of several names is missing, so the response lists these (`resource_errors`, xRFC TP3).
Clients that don't know that field wait until their own timer ends, after 15 s.

A returning client sends a version, and no list of what it holds (rule 33):

    type    its version is                          then
    any     the newest one of a full-state type     the client holds the newest state, and nothing is sent
    CDS     in the index of published versions      the client holds those clusters. The ones that are removed stay in the full
                                                    state until the routes are ACKed
    RDS     any                                     the client holds routes of unknown content until they are ACKed. A version
                                                    does not identify them, because a response may have only some of them
    others                                          everything is sent

Known flaws:
- If a removed cluster of a returning client is not known (`versions/removed_clusters.py`), the cluster can't be in the full
  state. Then it is deleted before the routes that name it. The new state can't wait until the routes are ACKed, because the
  new routes may need the new clusters. This happens if the version is not in the index, if too many clusters were removed
  since, if the server was killed within a second of the removal, or if other gateways select the node now.
- A full state can't be split, so it may be above 4 MiB, which the event `Oversized` reports. Envoy's own gRPC client takes
  that, google_grpc does not.
"""

from __future__ import annotations

from typing import Any, Self

from controlplane.envoy_types import CLUSTER, FULL_STATE, ROUTES
from controlplane.snapshot import Resource, Resources, type_version
from controlplane.xds import wire
from controlplane.xds.claims import sotw_claim
from controlplane.xds.context import Context
from controlplane.xds.events import Event, Oversized
from controlplane.xds.ordering import changes_to_send
from controlplane.xds.overlay import same
from controlplane.xds.refusals import Contents, unseen
from controlplane.xds.stream import Stream
from controlplane.xds.subscription import Subscription


class SotwStream(Stream):
    """One SotW stream; see `Stream`."""

    # The second set: the client can read a wrapped resource. Envoy's protocol page and its list of client features give this
    # feature two different names.
    FEATURES = (
        frozenset({"xds.config.supports-resource-ttl"}),
        frozenset({"xds.config.resource-in-sotw", "xds.config.supports-resource-in-sotw"}),
    )

    def __init__(self, type_url: str = "", ttl: int = 0, context: Context | None = None) -> None:
        """See `Stream`."""
        super().__init__(type_url, ttl, context)
        # By type URL: the version on the first request, until there is a snapshot to compare it with.
        self._initial_versions: dict[str, str] = {}

    def receive(self, request: Any) -> list[Event]:
        """Take a DiscoveryRequest (rules 7, 11 and 12). Errors: INVALID_ARGUMENT for a request that must end the stream."""
        sub, is_first = self._subscription_for(request.type_url)
        events = self._identify(request.node)
        if is_first:
            self._initial_versions[sub.type_url] = request.version_info
            sub.returning = bool(request.version_info)
        elif request.response_nonce != sub.last_nonce:
            return events
        elif request.HasField("error_detail"):
            events += sub.nack(request.response_nonce, request.error_detail.message)
        else:
            sub.ack(request.response_nonce)
        sub.set_names(set(request.resource_names))
        if is_first:
            self._set_latest(sub)
        elif request.HasField("error_detail"):
            sub.requested = {n for n in sub.requested if not sub.stands(n)}  # the client has just refused these
        return events + self._advance()

    def fingerprint(self) -> tuple[object, ...] | None:
        """See `Stream`. The newest nonces are part of it, because they decide what the next request means."""
        fingerprint = super().fingerprint()
        return None if fingerprint is None else (*fingerprint, *(sub.last_nonce for sub in self._subscriptions.values()))

    def fork(self) -> Self:
        """See `Stream`."""
        other = super().fork()
        other._initial_versions = dict(self._initial_versions)
        return other

    def _heartbeat_message(self, type_url: str, version: str, nonce: str, resources: list[Resource]) -> bytes:
        return wire.sotw_heartbeat(type_url, version, nonce, resources, self._ttl)

    def _set_latest(self, sub: Subscription) -> None:
        super()._set_latest(sub)
        version = self._initial_versions.get(sub.type_url)
        if self._snapshot is None or version is None:
            return
        newest_version = self._snapshot.versions.get(sub.type_url, "")
        claim = sotw_claim(sub, version, newest_version, self.context.versions, bool(self._ttl))
        if claim is not None:
            self._pending_events += self._hold.judge(claim, self._snapshot, self.context.versions)
        if not self._snapshot.revision or self._hold.active:
            return  # the client is compared with the first revision that it may be sent
        del self._initial_versions[sub.type_url]
        comparable = sub.wildcard and not sub.requested and sub.type_url in FULL_STATE
        if comparable and version and version == newest_version:
            sub.held.replace(sub.latest)
            sub.answer_wildcard = False
        elif comparable and version and sub.type_url == CLUSTER:
            self._set_held_clusters(sub, version)
        elif version and sub.type_url == ROUTES and any(s.wildcard for s in self.subscriptions_to(CLUSTER)):
            for name in sub.names:
                sub.held.set(name, unseen(ROUTES, name, version))

    def _set_held_clusters(self, sub: Subscription, version: str) -> None:
        """Note that a returning client holds the clusters of an earlier version, as far as they are known (rule 33)."""
        former = self.context.versions.find(CLUSTER, version)
        if former is None:
            return
        removed = self.context.versions.removed_clusters
        held: dict[str, Resource] = {}
        for name, cluster in former.items():
            newest = sub.latest.get(name)
            known = newest if same(newest, cluster) else removed.find(name, cluster.version)
            if known is not None:
                held[name] = known
        sub.held.replace(held)
        # Clusters that are not known are deleted by a full state.
        sub.answer_wildcard = len(held) < len(former)

    def _send(self, sub: Subscription) -> bool:
        if sub.inflight:
            return False
        if sub.requested and sub.type_url not in FULL_STATE:
            # A client may ask for any number of names that do not exist. No response mentions them.
            absent = sub.requested - sub.latest.keys()
            sub.requested -= {n for n in absent if n not in sub.refused and sub.held.get(n) is None}
        changes = changes_to_send(sub, self)
        if sub.type_url in FULL_STATE:
            return self._send_full_state(sub, changes) if changes or sub.answer_wildcard or sub.requested else False
        return self._send_some(sub, changes)

    def _send_full_state(self, sub: Subscription, changes: Contents) -> bool:
        """Send everything that the client should have of a type (rule 21), and list the missing names (rule 35)."""
        assert self._snapshot is not None
        contents: Resources = sub.latest
        version = self._snapshot.versions.get(sub.type_url, "")
        chosen = {n: sub.held.get(n) for n in (*sub.held.differing(sub.latest), *sub.refused) if sub.covers(n)}
        if sub.uses_unacked:  # the client may use what it refused, and would delete it if it were absent
            chosen.update({n: sub.held.get(n) or sub.latest.get(n) for n in sub.refused if sub.covers(n)})
        chosen.update(changes)
        if not sub.wildcard or any(not same(r, sub.latest.get(n)) for n, r in chosen.items()):
            everything = {**{n: r for n, r in sub.latest.items() if sub.covers(n)}, **chosen}
            contents = {n: r for n, r in everything.items() if r is not None}
            version = type_version(contents.values())
            if sub.wildcard:
                newest_version = self._snapshot.versions.get(sub.type_url, "")
                self.context.versions.add_mixed(sub.type_url, version, contents, newest_version, sub.latest)
        missing = [n for n in sorted(sub.requested) if n not in contents and n not in sub.latest]
        nonce = self._note_sent(sub, contents, full_state=True)
        response = self.context.encoder.sotw_response(sub.type_url, version, nonce, contents.values(), self._ttl)
        data = response + wire.sotw_missing(missing)
        if len(data) > wire.LIMIT:
            self._pending_events.append(Oversized(sub.type_url, len(data)))
        self._out.append(data)
        return True

    def _send_some(self, sub: Subscription, changes: Contents) -> bool:
        """Send some resources of a type (rule 22). One response stays below 4 MiB (rule 24)."""
        assert self._snapshot is not None
        encoder = self.context.encoder
        sub.answer_wildcard = False  # an empty response means nothing here
        part: dict[str, Resource | None] = {}
        size = 0
        removed = False
        for name in sorted(changes):
            resource = changes[name]
            if resource is None:
                sub.requested.discard(name)
                sub.refused.pop(name, None)
                removed = removed or sub.held.get(name) is not None
                sub.held.set(name, None)
                continue
            size += len(encoder.sotw_entry(resource, self._ttl))
            if part and size > wire.LIMIT:
                break  # the other changes are sent after the ACK of this part, because they still differ
            part[name] = resource
        if part:
            version = self._snapshot.versions.get(sub.type_url, "")
            nonce = self._note_sent(sub, part)
            resources = [r for r in part.values() if r]
            self._out.append(encoder.sotw_response(sub.type_url, version, nonce, resources, self._ttl))
        return bool(part) or removed
