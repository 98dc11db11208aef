"""One stream: take inputs, send what is due, report events. `delta.py` and `sotw.py` have the two variants.

A stream decides by pure rules, each in a file of its own:

    which changes to send now                              `ordering.py`
    is a cluster in place, is something still used         `readiness.py`
    what was refused, and what of it to try again          `refusals.py`
    is the snapshot held, settled or blocked               `completeness.py`
    types that the client takes over other streams         `coordination.py`

Pace. At most one unrequested response of each type is in flight. Its ACK starts the next pass, which uses only the newest
snapshot (rule 10): a slow client gets one response for a thousand snapshots, and nothing queues. In delta, requested resources
are sent at once. In SotW a request that does not answer the newest response is void.

Envoy warms a changed cluster again, and for that it needs the endpoints again ("Resource warming"). So they are sent after the
cluster, unrequested (rule 32).
"""

from __future__ import annotations

from collections.abc import Container
from copy import copy
from typing import Any, ClassVar, Self

from controlplane.envoy_types import CLUSTER, ENDPOINTS, NAMED_BY, ORDER
from controlplane.errors import Code, Error
from controlplane.snapshot import NOTHING, Resource, Snapshot, type_version
from controlplane.xds import readiness
from controlplane.xds.completeness import Completeness
from controlplane.xds.context import Context
from controlplane.xds.events import Event, Recovered
from controlplane.xds.held_back import HoldBack
from controlplane.xds.node import identified
from controlplane.xds.refusals import Batch, Contents
from controlplane.xds.state import StreamState
from controlplane.xds.subscription import Subscription, changed, held_resources

# Types that one stream may ask for, at most. The limit protects the memory of the control plane.
MAX_TYPES = 64
# Unanswered responses of one type, at most: a client may send requests without ever answering a response.
MAX_UNANSWERED = 1_000


class Stream(StreamState):
    """One stream. `type_url` is "" on ADS, and else the type of a per-type service."""

    # A client gets TTLs if it has at least one client feature of each set ("TTL").
    FEATURES: ClassVar[tuple[frozenset[str], ...]] = ()

    def __init__(self, type_url: str = "", ttl: int = 0, context: Context | None = None) -> None:
        """`ttl`: seconds for which a client that supports TTLs uses a resource without a heartbeat; 0: for ever."""
        super().__init__(type_url, context if context is not None else Context())
        self._ttl = ttl
        # The nonce of the newest response; 0 before any.
        self.nonce = 0
        # The first request, which names the client, has come.
        self.identified = False
        self._completeness = Completeness()
        self._hold = HoldBack()
        # Endpoints to send again after their cluster changed; also while the client has not asked for endpoints yet.
        self._resend: set[str] = set()
        # Events to report at the end of the current pass.
        self._pending_events: list[Event] = []
        self._out: list[bytes] = []

    # ------------------------------------------------------------------------------------------------------ inputs

    def offer(self, snapshot: Snapshot) -> list[Event]:
        """Take the newest snapshot. Unsent changes of an older one are dropped.

        A snapshot of revision 0 means that there is no revision yet. Then nothing is sent, and the client keeps what it has
        (rule 37). Nor is anything sent to a client of another history that would lose something (`held_back.py`).
        """
        self._snapshot = snapshot
        self._pending_events += self._hold.offer(snapshot, self.context.versions)
        for sub in self._subscriptions.values():
            self._set_latest(sub)
        return self._advance()

    def adopt(self) -> list[Event]:
        """Send the newest snapshot to a client that is held back, whatever it loses. Does nothing for any other client."""
        if not self._hold.active:
            return []
        self._pending_events += self._hold.adopt()
        for sub in self._subscriptions.values():
            self._set_latest(sub)
        return self._advance()

    def assume_complete(self) -> list[Event]:
        """Assume that the client has asked for all that it wants, and holds nothing else.

        Call it once, some time after a stream's first request. Without this call, some resources that the client no longer
        needs may never be removed.
        """
        self._assumed_complete = True
        return self._advance()

    def reconsider(self) -> list[Event]:
        """Send what has waited for another stream of the node, if it may be sent now."""
        return self._advance()

    def retry_in_parts(self) -> list[Event]:
        """Try in parts what was refused together with other resources (`refusals.py`).

        Call it once after each NACK, but not at once: rule 8 forbids to answer a NACK. A second later is fine.
        """
        for sub in self._subscriptions.values():
            sub.refused.retry_in_parts(sub.latest, sub.held, sub.uses_unacked)
        return self._advance()

    def heartbeat(self) -> None:
        """Renew the TTL of all that the client holds (rule 34). Does nothing for clients without TTLs.

        Call it a few times in each TTL: a type with a response in flight is left out until the next call. A heartbeat has
        about 150 bytes for each resource.
        """
        for sub in self._subscriptions.values() if self._ttl and self._snapshot is not None else ():
            held = held_resources(sub)
            if held and not sub.inflight:
                nonce = self._note_sent(sub, NOTHING)
                self._out.append(self._heartbeat_message(sub.type_url, type_version(held), nonce, held))

    def to_send(self) -> list[bytes]:
        """Take out the serialised responses, in the order to send. Call it after each input."""
        out, self._out = self._out, []
        return out

    # ------------------------------------------------------------------------------------------------- for the memo

    @classmethod
    def supports_ttl(cls, node: Any) -> bool:
        """Return whether the client features of a node include TTLs."""
        return all(any(f in node.client_features for f in group) for group in cls.FEATURES)

    def fork(self) -> Self:
        """Return an independent copy. Call it only when nothing is refused, and after `to_send`."""
        other = copy(self)
        other.owner = None
        other._completeness, other._hold = self._completeness.fork(), self._hold.fork()
        other._resend, other._pending_events, other._out = set(self._resend), [], []
        other._subscriptions = {t: sub.fork() for t, sub in self._subscriptions.items()}
        if ENDPOINTS in other._subscriptions:
            other._subscriptions[ENDPOINTS].resend = other._resend
        return other

    def fingerprint(self) -> tuple[object, ...] | None:
        """Return a value that is equal for two streams with the same future behaviour; None unless the stream is idle.

        It contains identities of objects, so it is valid only while this stream exists and does not change.
        """
        if self.coordination is not None or not self.revision or self._resend or self._hold.active:
            return None
        assert self._snapshot is not None
        parts = []
        for sub in self._subscriptions.values():
            part = sub.fingerprint(self._assumed_complete)
            if part is None:
                return None
            parts.append(part)
        reported = self._completeness.reported(self._snapshot.revision)
        return (type(self), self.type_url, self._ttl, id(self._snapshot), self._assumed_complete, reported, *parts)

    # ---------------------------------------------------------------------------------------------- for the variants

    def _send(self, sub: Subscription) -> bool:
        """Send the changes of a type that may be sent now. Returns whether there were any."""
        raise NotImplementedError

    def _heartbeat_message(self, type_url: str, version: str, nonce: str, resources: list[Resource]) -> bytes:
        """Return a heartbeat, serialised."""
        raise NotImplementedError

    def _identify(self, node: Any) -> list[Event]:
        """Return the event of the first request (rule 1). The node of a later request is ignored."""
        if self.identified:
            return []
        self.identified = True
        if not self.supports_ttl(node):
            self._ttl = 0
        return [identified(node)]

    def _subscription_for(self, type_url: str) -> tuple[Subscription, bool]:
        """Return the subscription of a request's type, and whether it is new (rules 2 and 4). Errors: INVALID_ARGUMENT."""
        if self.type_url and type_url not in ("", self.type_url):
            message = f"type_url: this stream serves {self.type_url}, not {type_url[:200]}"
            raise Error(Code.INVALID_ARGUMENT, "TYPE_URL_MISMATCH", message)
        type_url = type_url or self.type_url
        if not type_url:
            raise Error(Code.INVALID_ARGUMENT, "TYPE_URL_REQUIRED", "type_url: is required on an aggregated stream")
        sub = self._subscriptions.get(type_url)
        if sub is not None:
            sub.now = self.now
            return sub, False
        if len(self._subscriptions) >= MAX_TYPES:
            raise Error(Code.INVALID_ARGUMENT, "TOO_MANY_TYPES", f"type_url: more than {MAX_TYPES} types on one stream")
        sub = Subscription(type_url, self.context.diffs, self.now)
        if type_url == ENDPOINTS:
            sub.resend = self._resend
        subs = {**self._subscriptions, type_url: sub}
        self._subscriptions = {t: subs[t] for t in (*ORDER, *(t for t in subs if t not in ORDER)) if t in subs}
        return sub, True

    def _set_latest(self, sub: Subscription) -> None:
        """Give a subscription the newest snapshot, if there is one."""
        if self._snapshot is not None:
            sub.set_latest(self._snapshot.resources.get(sub.type_url, NOTHING))

    def _advance(self) -> list[Event]:
        """Make passes over the types, in their order (rule 30), until nothing more can be sent. Returns the events."""
        if self._snapshot is None or not self._snapshot.revision or self._hold.active:
            events, self._pending_events = self._pending_events, []
            return events
        progress = True
        while progress:
            # A removal can make a removal of an earlier type possible. The loop ends, because each change is sent once.
            progress = False
            for sub in self._subscriptions.values():
                progress = self._send(sub) or progress
        events, self._pending_events = self._pending_events, []
        for sub in self._subscriptions.values():
            if sub.recovery_pending and not sub.refused:
                sub.recovery_pending = False
                events.append(Recovered(sub.type_url))
        return events + self._completeness.events(self, self._snapshot)

    def _note_sent(self, sub: Subscription, contents: Contents, full_state: bool = False) -> str:
        """Note that a response with this content is sent, and its endpoints again (rule 32). Returns its nonce.

        Errors: INVALID_ARGUMENT if too many responses are unanswered.
        """
        assert self._snapshot is not None
        if sub.type_url == CLUSTER and self.coordination is not None and ENDPOINTS not in self._subscriptions:
            self.coordination.clusters_sent(self.view, [c for c in changed(sub, contents) if sub.held.get(c.name)])
        elif sub.type_url == CLUSTER and not self.type_url:
            for cluster in changed(sub, contents):
                self._resend.update(n for t, n in cluster.refs if t == ENDPOINTS)
        if len(sub.inflight) >= MAX_UNANSWERED:
            message = f"response_nonce: {MAX_UNANSWERED} responses of {sub.type_url} were not answered; answer each response"
            raise Error(Code.INVALID_ARGUMENT, "TOO_MANY_UNANSWERED", message)
        self.nonce = self.context.next_nonce()
        nonce = str(self.nonce)
        sub.sent(nonce, Batch(self._snapshot.revision, contents, full_state))
        return nonce

    # ------------------------------------------------------------------------------------------- as an `ordering.Barrier`

    def in_place(self, resource: Resource) -> bool:
        """Return whether every cluster that a resource names is in place."""
        node, subs = self.coordination, self._subscriptions
        if node is None or resource.type_url == CLUSTER or (CLUSTER in subs and ENDPOINTS in subs):
            return readiness.in_place(self, resource)
        return node.in_place(self.view, resource)

    def still_used(self, type_url: str) -> Container[str]:
        """Return the names of a type that the client may still use. A per-type stream that is independent has none."""
        if self.coordination is not None and not all(p in self._subscriptions for p in NAMED_BY.get(type_url, ())):
            return self.coordination.still_used(self.view, type_url)
        return readiness.still_used(self, type_url) if not self.type_url else ()
