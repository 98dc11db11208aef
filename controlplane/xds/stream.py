"""What SotW and delta have in common: the order of things across types, and when to send.

Order ("Eventual consistency considerations"; make before break). A pass goes over the types in the order CDS, EDS, SDS, LDS,
SRDS, RDS, and for every name at which the client differs from the newest snapshot one of four things is decided:

    what should be held is …           and …                                             then
    there, and different               every cluster it names is in place                send it
    there, and different               one is not                                        keep: the client's old one stays
    gone                               nothing the client may hold names it              remove it
    gone                               something does                                    keep
    exactly what was refused           (whatever)                                        keep

- A cluster is *in place* when the client has ACKed it on this stream, at any version, and has ACKed what it is warmed with:
  its endpoints, if it takes them over EDS, and its secrets. That is what routes wait for, because routes are not warmed. The
  version does not matter: a cluster that is replaced goes on serving as it was until the new one is warm. So a refused new
  cluster holds back the routes that need it.
- The barrier concerns clients that take every cluster there is (CDS with a wildcard: Envoys). A client that names its
  clusters asks for them because a route names them (gRPC: LDS, RDS, CDS, EDS); to hold back the route would be to wait for
  ever. It ACKs a route before it has the clusters, and goes on with the old ones until it has them: so nothing of CDS is
  removed until then. The same holds for a stream that never asked for CDS: per-type streams, and clients of routes alone.
- What the client *may hold*: what it ACKed, what is in flight, and what was in a response that it refused (it may have
  taken a part). Endpoints go after their clusters, secrets after clusters and listeners, clusters after routes and listeners,
  routes after scopes and listeners.
- A client that comes back (`initial_resource_versions`) may hold things that we have never seen. What they name we can't
  know, so while it has one, or has not said yet what it has of a type, nothing goes that the type could name. Of a type
  that it never speaks of it would never say so: `assume_complete` tells that it has had time enough.
- A cluster that changed is warmed again, for which Envoy needs its endpoints anew ("Resource warming"): they are sent after
  it, unasked.

- What a stream does not speak of itself, the node's other streams may: then they are asked (`coordination.py`).

Nothing here waits on LDS, so a request that is late or never comes can't hold up the others: EDS never waits for CDS, since
an Envoy asks for endpoints before it ACKs the clusters, and CDS waits for nobody except to remove.

Pace. At most one unasked response per type is in flight. Its ACK starts the next pass, which looks at the newest snapshot
only: a slow client is sent one response for a thousand snapshots, and nothing queues. Answers to what a client asks
for go out at once (delta; in SotW a request that is not the answer to the newest response is void anyway).

Held. A snapshot is held when each type is settled at it (nothing differs, is in flight, refused or unanswered) and everything
that follows from what is subscribed is subscribed itself: clusters with EDS want their endpoints, scopes their routes, and
a wildcard on an ADS stream means an Envoy, which goes on to ask for every type that has anything.

While something stands refused that is of older revisions only, a snapshot can be *settled*: the same, if what was refused is
as it is at the client. Then a switch has taken effect, whatever the client thinks of an unrelated listener. If a part of
the snapshot is kept back because of what was refused (a route, whose cluster it was), the snapshot is *blocked*.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Container, Iterable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import ReferenceType

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, NAMED_BY, ORDER, ROUTES
from controlplane.errors import Code, Error
from controlplane.snapshot import Resource, Snapshot, type_version
from controlplane.xds.events import Blocked, Event, Held, Recovered, Settled
from controlplane.xds.node import identified
from controlplane.xds.overlay import NOTHING, references, same
from controlplane.xds.subscription import ANYTHING, Batch, Subscription, changed

if TYPE_CHECKING:
    from controlplane.xds.coordination import Coordination, StreamView

# Types that one stream may ask for; more is no client, but an attempt to fill the memory.
MAX_TYPES = 64
# Never used again in this process: streams that are alike are sent the same bytes (`memo.py`).
_nonces = itertools.count(1)
# Responses of a type that are not answered; a client that asks on and on without an answer is none either.
MAX_UNANSWERED = 1_000


def nonces_up_to_now() -> int:
    """A number that all nonces so far are below, and all to come above."""
    return next(_nonces)


class Stream:
    """One stream. `type_url` is "" on ADS, and the type that a per-type service serves otherwise."""

    # Client features, one of each of which a client must say if it is to be given TTLs ("TTL").
    FEATURES: ClassVar[tuple[frozenset[str], ...]] = ()

    def __init__(self, type_url: str = "", ttl: int = 0) -> None:
        self.type_url = type_url
        # Seconds that a client goes on using a resource for without a heartbeat; 0: for ever, and to clients that can't do it.
        self._ttl = ttl
        # Seconds of any clock that only goes forward; the owner sets it before what it tells. Only `status.py` reads it.
        self.now = 0.0
        # The streams of the node that this one is of; None while none of the others can be of the same client.
        self.coordination: Coordination | None = None
        # What it is among them; None: itself. Neither a reference to itself nor one that keeps another: points come with each
        # revision (`memo.py`), and are to go when they are let go of, not when garbage is looked for.
        self.owner: ReferenceType[StreamView] | None = None
        self._subscriptions: dict[str, Subscription] = {}
        # None until the first offer; requests before it are remembered.
        self._snapshot: Snapshot | None = None
        # Of the newest response; 0 before any.
        self.nonce = 0
        # The client has said who it is.
        self.identified = False
        # Revision of the newest Held; -1 before any.
        self._held = -1
        # The same of Settled, and of Blocked.
        self._settled = self._blocked = -1
        # The client has had time to say what it holds.
        self._assumed_complete = False
        # Endpoints to be sent after a cluster that changed; also of a client that is still to ask for endpoints.
        self._owed: set[str] = set()
        # Events that came up while sending.
        self._news: list[Event] = []
        self._out: list[bytes] = []

    # --------------------------------------------------------------------------------------------------- interface

    def offer(self, snapshot: Snapshot) -> list[Event]:
        """Takes the newest snapshot; what an older one still had to send is forgotten."""
        self._snapshot = snapshot
        for sub in self._subscriptions.values():
            self._point(sub)
        return self._advance()

    def assume_complete(self) -> list[Event]:
        """The client has had the time to ask for all that it wants; what it did not mention, it neither has nor waits for.

        Meant to be called once, some time after a stream's first request. Without it nothing goes wrong, but what
        only a client with unusual subscriptions could still be using may stay with it.
        """
        self._assumed_complete = True
        return self._advance()

    def reconsider(self) -> list[Event]:
        """Another stream of the node has moved on; what waited for that may go now."""
        return self._advance()

    def subscription(self, type_url: str) -> Subscription | None:
        """The conversation about one type, to be read; None when there was none."""
        return self._subscriptions.get(type_url)

    @classmethod
    def takes_ttl(cls, node: Any) -> bool:
        """Whether a client says that it can do with TTLs."""
        return all(any(f in node.client_features for f in group) for group in cls.FEATURES)

    def fork(self) -> Self:
        """Another stream in the same state, whatever becomes of this one. Nothing may stand refused, or be there to send."""
        other = copy(self)
        other.owner = None
        other._owed, other._news, other._out = set(self._owed), [], []
        other._subscriptions = {t: sub.fork() for t, sub in self._subscriptions.items()}
        if ENDPOINTS in other._subscriptions:
            other._subscriptions[ENDPOINTS].owed = other._owed
        return other

    def fingerprint(self) -> tuple[object, ...] | None:
        """Equal for two streams that will say the same when they are told the same; None unless all is quiet.

        Identities are in it: it means something as long as this stream is there, and unchanged.
        """
        if self.coordination is not None or self._snapshot is None or self._owed:
            return None
        parts = []
        for sub in self._subscriptions.values():
            part = sub.fingerprint(self._assumed_complete)
            if part is None:
                return None
            parts.append(part)
        revision = self._snapshot.revision
        said = tuple(r == revision for r in (self._held, self._settled, self._blocked))
        return (type(self), self.type_url, self._ttl, id(self._snapshot), self._assumed_complete, said, *parts)

    @property
    def view(self) -> StreamView:
        """What it is among the streams of its node."""
        owner = self.owner() if self.owner is not None else None
        return self if owner is None else owner

    @property
    def revision(self) -> int:
        """Of the newest snapshot; 0 before there is one."""
        return self._snapshot.revision if self._snapshot is not None else 0

    @property
    def difference_count(self) -> int:
        """In how many names it differs from shared mappings."""
        return sum(sub.difference_count for sub in self._subscriptions.values())

    @property
    def has_refusals(self) -> bool:
        """Whether the client has refused something that stands, or has not been said to be over."""
        return any(sub.refused or sub.refusing for sub in self._subscriptions.values())

    @property
    def awaits_answer(self) -> bool:
        """Whether the client has something to answer."""
        return any(sub.inflight for sub in self._subscriptions.values())

    @property
    def types(self) -> Collection[str]:
        """Type URLs that the client has asked for."""
        return self._subscriptions.keys()

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Every conversation, in the order of types, to be read."""
        return tuple(self._subscriptions.values())

    def should_hold(self, type_url: str) -> Mapping[str, Resource]:
        """All of a type in the newest snapshot."""
        return NOTHING if self._snapshot is None else self._snapshot.resources.get(type_url, NOTHING)

    @property
    def returning(self) -> bool:
        """Whether the client holds things from an earlier stream, and has not had the time to say all that it holds."""
        return not self._assumed_complete and any(s.returning for s in self._subscriptions.values())

    @property
    def name_count(self) -> int:
        """How many names are subscribed to."""
        return sum(len(s.names) for s in self._subscriptions.values())

    def heartbeat(self) -> None:
        """Prolongs all that the client holds; to be called a few times in each TTL. Does nothing for clients without TTLs.

        A type with a response in flight is left out: it is prolonged the next time. A heartbeat is about 150 bytes a resource.
        """
        for sub in self._subscriptions.values() if self._ttl and self._snapshot is not None else ():
            holds = sub.holds()
            if holds and not sub.inflight:
                nonce = self._sent(sub, NOTHING)
                self._out.append(self._beat(sub.type_url, type_version(holds), nonce, holds))

    def retry_in_parts(self) -> list[Event]:
        """Some time has passed since a NACK: what was refused in company is tried in parts (see `subscription.py`).

        Meant to be called once after each NACK, not sooner than a client may expect silence: say after half a minute.
        """
        for sub in self._subscriptions.values():
            sub.retry_in_parts()
        return self._advance()

    def to_send(self) -> list[bytes]:
        """Takes out what is to be sent, in order: serialised responses. Call it after each receive, offer and quiet."""
        out, self._out = self._out, []
        return out

    # ---------------------------------------------------------------------------------------------- for the variants

    def _send(self, sub: Subscription) -> bool:
        """Sends what the sub-stream lacks, if it may now. Returns whether anything changed by that."""
        raise NotImplementedError

    def _beat(self, type_url: str, version: str, nonce: str, resources: list[Resource]) -> bytes:
        """A heartbeat, serialised."""
        raise NotImplementedError

    def _identify(self, node: Any) -> list[Event]:
        """The event of the first request; later ones may or may not carry a node, which is not looked at."""
        if self.identified:
            return []
        self.identified = True
        if not self.takes_ttl(node):
            self._ttl = 0
        return [identified(node)]

    def _substream(self, type_url: str) -> tuple[Subscription, bool]:
        """The sub-stream that a request is about, and whether it is new. Errors: INVALID_ARGUMENT."""
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
        sub = Subscription(type_url, self.now)
        if type_url == ENDPOINTS:
            sub.owed = self._owed
        subs = {**self._subscriptions, type_url: sub}
        self._subscriptions = {t: subs[t] for t in (*ORDER, *(t for t in subs if t not in ORDER)) if t in subs}
        return sub, True

    def _point(self, sub: Subscription) -> None:
        """Lets a sub-stream look at the newest snapshot, if there is one."""
        if self._snapshot is not None:
            sub.set_latest(self._snapshot.resources.get(sub.type_url, NOTHING))

    def _advance(self) -> list[Event]:
        """Passes until nothing more can be sent; then reports what came of it."""
        if self._snapshot is None:
            return []
        progress = True
        while progress:
            # Letting go of one thing can free another that comes earlier in the order; it never goes round in circles.
            progress = False
            for sub in self._subscriptions.values():
                progress = self._send(sub) or progress
        events, self._news = self._news, []
        for sub in self._subscriptions.values():
            if sub.refusing and not sub.refused:
                sub.refusing = False
                events.append(Recovered(sub.type_url))
        if self._held != self._snapshot.revision and self._complete(self._snapshot):
            self._held = self._snapshot.revision
            events.append(Held(self._held))
        return events + self._without_refused(self._snapshot)

    def _without_refused(self, snapshot: Snapshot) -> list[Event]:
        """What is to be said of a snapshot that is not held only because something older was refused."""
        revision, subs = snapshot.revision, self._subscriptions.values()
        since = max((r.since for s in subs for r in s.refused.values()), default=revision)
        if since >= revision or revision in (self._held, self._settled) or not all(s.answered() for s in subs):
            return []
        if any(sub.lacks(n) for sub in subs if not sub.idle for n in sub.candidates()):
            # Other streams, and a client that has not said yet what it holds, are waited for too.
            if self._blocked == revision or self.coordination is not None or self.returning:
                return []
            self._blocked = revision
            return [Blocked(revision)]
        if not self.type_url:
            asked_first = [t for t in (CLUSTER, LISTENER) if snapshot.resources.get(t) and t not in self._subscriptions]
            if any(s.wildcard for s in subs) and not all(map(self._elsewhere, asked_first)):
                return []
            if not all(self._follows(sub, snapshot) for sub in subs):
                return []
        self._settled = revision
        return [Settled(revision, since)]

    def _sent(self, sub: Subscription, contents: Mapping[str, Resource | None], whole: bool = False) -> str:
        """Notes that these go out, and returns the nonce to send them with."""
        assert self._snapshot is not None
        if sub.type_url == CLUSTER and self.coordination is not None and ENDPOINTS not in self._subscriptions:
            self.coordination.clusters_sent(self.view, [c for c in changed(sub, contents) if sub.held.get(c.name)])
        elif sub.type_url == CLUSTER and not self.type_url:
            for cluster in changed(sub, contents):
                self._owed.update(n for t, n in cluster.refs if t == ENDPOINTS)
        if len(sub.inflight) >= MAX_UNANSWERED:
            message = f"response_nonce: {MAX_UNANSWERED} responses wait for an answer, and the client goes on asking"
            raise Error(Code.INVALID_ARGUMENT, "TOO_MANY_UNANSWERED", message)
        self.nonce = next(_nonces)
        nonce = str(self.nonce)
        sub.sent(nonce, Batch(self._snapshot.revision, contents, whole))
        return nonce

    # ----------------------------------------------------------------------------------------------------- decisions

    def _in_place(self, resource: Resource) -> bool:
        """Whether every cluster that it names is at the client, with its endpoints."""
        clusters = self._subscriptions.get(CLUSTER)
        if resource.type_url == CLUSTER:
            return True
        if self.coordination is not None and (clusters is None or ENDPOINTS not in self._subscriptions):
            return self.coordination.in_place(self.view, resource)
        if clusters is None or not clusters.wildcard:
            return True
        return all(self._cluster_in_place(clusters, name) for type_url, name in resource.refs if type_url == CLUSTER)

    def _cluster_in_place(self, clusters: Subscription, name: str) -> bool:
        cluster = clusters.held.get(name)
        if cluster is None or clusters.current(name) is None or clusters.may_be_gone(name):
            return False  # it is not there, or its removal is on its way, or was refused
        return all(self._has(t, n) for t, n in clusters.latest.get(name, cluster).refs)

    def _has(self, type_url: str, name: str) -> bool:
        """Whether the client has what a cluster is warmed with: endpoints, or a secret. If it never asks for the type: yes."""
        sub = self._subscriptions.get(type_url)
        return (
            sub is None
            or name not in sub.latest
            or (sub.held.get(name) is not None and sub.current(name) is not None and name not in sub.owed)
            or (self._assumed_complete and not sub.covers(name))
        )

    def _still_named(self, type_url: str) -> Container[str]:
        """The names of this type in all that the client may hold and should not. A lone per-type stream knows of none."""
        if self.coordination is not None and not all(p in self._subscriptions for p in NAMED_BY.get(type_url, ())):
            return self.coordination.named(self.view, type_url)
        if type_url == CLUSTER and self._taking_up_routes():
            return _Everything()
        named: set[str] = set()
        for parent in NAMED_BY.get(type_url, ()) if not self.type_url else ():
            sub = self._subscriptions.get(parent)
            if sub is None:
                if not self._assumed_complete and any(s.returning for s in self._subscriptions.values()):
                    return _Everything()
                continue
            for resource in sub.stale():
                if ANYTHING in resource.refs:
                    return _Everything()
                named.update(n for t, n in resource.refs if t == type_url)
        return named

    def _taking_up_routes(self) -> bool:
        """Whether a client that names its clusters lacks one that its new routes name: until it has it, it uses the old."""
        clusters, routes = self._subscriptions.get(CLUSTER), self._subscriptions.get(ROUTES)
        if clusters is None or routes is None or clusters.wildcard:
            return False
        held = (r for name in routes.names if (r := routes.held.get(name)))
        return any(
            t == CLUSTER
            and n in clusters.latest
            and not self._cluster_in_place(clusters, n)
            and not (self._assumed_complete and not clusters.covers(n))
            for r in held
            for t, n in r.refs
        )

    def _changes(self, sub: Subscription) -> dict[str, Resource | None]:
        """What to send of a type now, by name; None: to remove. Names that were asked for are there whatever is held."""
        changes: dict[str, Resource | None] = {}
        if sub.idle and not sub.owed:
            return changes
        settled = True
        still_named: Container[str] | None = None
        # Until the client has answered, it is sent what it asks for, and nothing else.
        for name in tuple(sub.asked) if sub.inflight else sub.candidates():
            asked = name in sub.asked
            if not asked and not sub.covers(name):
                continue
            resource, held = sub.latest.get(name), sub.held.get(name)
            settled = settled and same(resource, held)
            if resource is None and still_named is None:
                still_named = self._still_named(sub.type_url)
            kept = (resource is None and name in still_named) if still_named is not None else False
            if kept or sub.stands(name) or (resource is not None and not self._in_place(resource)):
                # Keep. What is kept for the client it may ask for again; and what it refused, if it asks by name.
                if not asked:
                    continue
                resource = sub.current(name) or resource
                if resource is not None and (ANYTHING in resource.refs or not self._in_place(resource)):
                    continue
            elif not (asked or name in sub.refused or (name in sub.owed and resource)) and same(sub.current(name), resource):
                continue
            changes[name] = resource
        if settled and not changes and sub.settled():
            sub.compact()
            sub.idle = True
        return sub.portion(changes)

    def _complete(self, snapshot: Snapshot) -> bool:
        """Whether the client holds all that the snapshot has for it."""
        subs = self._subscriptions
        if not subs or not all(s.settled() for s in subs.values()):
            return False
        for sub in subs.values():
            if sub.idle:
                continue
            if any(sub.covers(n) and not same(sub.held.get(n), sub.latest.get(n)) for n in sub.candidates()):
                return False
        if self.type_url:
            return True
        missing = [t for t, rs in snapshot.resources.items() if rs and t not in subs and not self._elsewhere(t)]
        if missing and (
            any(s.wildcard for s in subs.values()) or (self.coordination is not None and self.coordination.takes_all)
        ):
            return False
        return all(self._follows(sub, snapshot) for sub in subs.values())

    def _elsewhere(self, type_url: str) -> bool:
        """Whether the client takes a type over another stream."""
        return self.coordination is not None and self.coordination.speaks(self.view, type_url)

    def _follows(self, sub: Subscription, snapshot: Snapshot) -> bool:
        """Whether what the resources of a sub-stream name is subscribed to; of one that is refused, those at the client."""
        if sub.refused:
            covered = (n for n in sub.latest if sub.covers(n))
            return self._subscribed((sub.held.get(n) if sub.stands(n) else sub.latest[n] for n in covered), snapshot)
        if sub.wildcard or sub.names.all_of(sub.latest):
            for type_url, names in references(sub.latest).items():
                other, there = self._subscriptions.get(type_url), snapshot.resources.get(type_url, NOTHING)
                if other is None:
                    if not there.keys().isdisjoint(names) and not self._elsewhere(type_url):
                        return False
                elif not other.wildcard and not other.names.covers(names, there):
                    return False
            return True
        # The shorter way round: a client can name far more than there is.
        few = [n for n in sub.latest if n in sub.names] if len(sub.latest) < len(sub.names) else sub.names
        return self._subscribed((sub.latest[n] for n in few if n in sub.latest), snapshot)

    def _subscribed(self, resources: Iterable[Resource | None], snapshot: Snapshot) -> bool:
        """Whether all that these name, as far as it is there, is subscribed to."""
        for type_url, name in {ref for r in resources if r is not None for ref in r.refs}:
            other = self._subscriptions.get(type_url)
            if other is None and self._elsewhere(type_url):
                continue
            if name in snapshot.resources.get(type_url, NOTHING) and (other is None or not other.covers(name)):
                return False
        return True


class _Everything(Container[str]):
    def __contains__(self, name: object) -> bool:
        return True
