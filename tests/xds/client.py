"""An honest client: it behaves like an Envoy that takes clusters, endpoints, a listener, scopes and routes over ADS.

It subscribes to what follows from what it has, warms clusters, refuses what is bad, keeps what it had, and comes back with
what it holds. While it does, it checks that the server never leads it astray: whatever it is given must be usable at the
moment it is taken. AssertionError where it is not.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ORDER, ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Resource

WILDCARD = (CLUSTER, LISTENER, SCOPED_ROUTES)


def resource(type_url: str, name: str, content: int, refs: Iterable[tuple[str, str]] = (), bad: bool = False) -> Resource:
    """A resource that this client can read."""
    refs = sorted(refs)
    body = json.dumps({"name": name, "content": content, "refs": refs, "bad": bad}).encode()
    return Resource.of(type_url, name, body, refs)


@dataclass
class Has:
    """One resource in use."""

    version: str
    refs: set[tuple[str, str]]
    # Taken on the stream that is open now, rather than brought along.
    here: bool = True
    # Clusters: it can serve; and it waits for endpoints.
    usable: bool = False
    warming: bool = False


@dataclass
class Type:
    """One type: what is in use, what of it was accepted, and where the conversation stands."""

    has: dict[str, Has] = field(default_factory=dict)
    # Version by name, of what was accepted: what the client says it holds when it comes back.
    accepted: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    open: bool = False
    nonce: str = ""
    version: str = ""
    # How often the server has a cause to send a name although it is in use as it is.
    causes: Counter[str] = field(default_factory=Counter)
    # It has refused something on this stream: from then on the server may have to say again what the client has already.
    doubt: bool = False


class Client:
    """One client; the requests it wants to send are in `outbox`."""

    def __init__(self, variant: str) -> None:
        self.delta = variant == "delta"
        self.types = {t: Type() for t in ORDER}
        self.outbox: deque[Any] = deque()
        # A refused response was taken in part, and so what it says it holds may not be what it uses.
        self.muddled = False
        self.connect()

    # ------------------------------------------------------------------------------------------------------ requests

    def connect(self) -> None:
        """Opens a new stream, with what it holds; the old one is gone, with all that was on its way."""
        self.outbox.clear()
        if self.muddled:
            self.types, self.muddled = {t: Type(open=t == CLUSTER) for t in ORDER}, False
        self.types[CLUSTER].open = True
        node = base_pb2.Node(id="n", cluster="c")
        for type_url, t in self.types.items():
            t.nonce, t.doubt = "", False
            t.causes = Counter() if self.delta else Counter(t.names)
            for name, has in t.has.items():
                has.here = self.delta
                if has.warming and name in self.types[ENDPOINTS].has:
                    has.usable, has.warming = True, False  # after 15 s it takes what it has; nobody can know that it waits
            if t.open:
                self._open(type_url, node)
                node = None

    def _open(self, type_url: str, node: Any = None) -> None:
        t = self.types[type_url]
        t.open = True
        if self.delta:
            known = {n: v for n, v in t.accepted.items() if type_url in WILDCARD or n in t.names}
            message = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, initial_resource_versions=known, node=node)
            message.resource_names_subscribe.extend(["*"] if type_url in WILDCARD else sorted(t.names))
            t.causes += Counter(t.names - known.keys())
            if type_url in WILDCARD or t.names:
                self.outbox.append(message)
            else:
                t.open = False
        else:
            self._ask(type_url, node=node)

    def _ask(self, type_url: str, error: str = "", node: Any = None) -> None:
        """SotW: says everything anew."""
        t = self.types[type_url]
        message = discovery_pb2.DiscoveryRequest(type_url=type_url, version_info=t.version, response_nonce=t.nonce, node=node)
        message.resource_names.extend(sorted(t.names))
        if error:
            message.error_detail.message = error
        self.outbox.append(message)

    def _subscribe(self, type_url: str, more: set[str], less: set[str]) -> None:
        t = self.types[type_url]
        if not more and not less:
            return
        t.names = (t.names | more) - less
        t.causes += Counter(more)
        for name in less:
            t.has.pop(name, None)
            t.accepted.pop(name, None)
        if not t.open:
            self._open(type_url)
        elif self.delta:
            message = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url)
            message.resource_names_subscribe.extend(sorted(more))
            message.resource_names_unsubscribe.extend(sorted(less))
            self.outbox.append(message)
        else:
            self._ask(type_url)

    def forget(self, type_url: str, name: str) -> None:
        """Delta: asks anew for a name that it had asked for already."""
        t = self.types[type_url]
        if self.delta and t.open and name in t.names:
            t.causes[name] += 1
            self.outbox.append(discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=[name]))

    # ----------------------------------------------------------------------------------------------------- responses

    def take(self, data: bytes) -> None:
        """Takes a response, and answers it."""
        if self.delta:
            response = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
            given = {r.name: (r.version, json.loads(r.resource.value)) for r in response.resources}
            assert len(given) == len(response.resources)
            removed = set(response.removed_resources)
            assert removed.isdisjoint(given)
        else:
            response = discovery_pb2.DiscoveryResponse.FromString(data)
            parsed = [(json.loads(r.value), Resource.of(r.type_url, "", r.value).version) for r in response.resources]
            given = {m["name"]: (v, m) for m, v in parsed}
            assert len(given) == len(response.resources)
            removed = set()
            if response.type_url in WILDCARD:
                removed = self.types[response.type_url].has.keys() - given.keys()
        type_url = response.type_url
        t = self.types[type_url]
        assert response.nonce != t.nonce
        t.nonce = response.nonce
        self._check_cause(type_url, given, removed)
        bad = sorted(n for n, (_, m) in given.items() if m["bad"])
        if bad and type_url in (ENDPOINTS, ROUTES):
            # Stops at the first fault: the ones before it are taken.
            taken = {n: given[n] for n in sorted(given) if n < bad[0]}
        else:
            taken = {n: g for n, g in given.items() if n not in bad}
        wanted = taken if type_url in WILDCARD else {n: g for n, g in taken.items() if n in t.names}
        changed = self._apply(type_url, {n: (v, {tuple(r) for r in m["refs"]}) for n, (v, m) in wanted.items()}, removed)
        if bad:
            self.muddled = self.muddled or bool(changed) or bool(removed)
            t.causes += Counter(given.keys() | removed)
            t.doubt = True
        else:
            for name in removed:
                t.accepted.pop(name, None)
            t.accepted.update({n: v for n, (v, _) in wanted.items()})
            t.version = "" if self.delta else response.version_info
        self._follow(type_url, changed)
        self._answer(type_url, f"bad: {', '.join(bad)}" if bad else "")

    def _answer(self, type_url: str, error: str) -> None:
        if self.delta:
            message = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=self.types[type_url].nonce)
            if error:
                message.error_detail.message = error
            self.outbox.append(message)
        else:
            self._ask(type_url, error)

    def _check_cause(self, type_url: str, given: dict[str, Any], removed: set[str]) -> None:
        t = self.types[type_url]
        news = bool(removed)
        # Endpoints come with clusters that were refused, each time that these are sent, for all that the server knows.
        rewarmed = type_url == ENDPOINTS and self.types[CLUSTER].doubt
        for name, (version, _) in given.items():
            unchanged = name in t.has and t.has[name].version == version
            news = news or not unchanged or t.causes[name] > 0
            if self.delta or type_url not in WILDCARD:
                assert not unchanged or t.causes[name] > 0 or rewarmed, f"{name} was sent again without cause"
            if unchanged and t.causes[name]:
                t.causes[name] -= 1  # a response that was in flight when the client asked is not the answer
        first = not t.accepted and not t.has
        assert news or first or t.doubt or rewarmed or +t.causes, f"a {type_url} response without news"

    def _apply(self, type_url: str, given: dict[str, tuple[str, set[tuple[str, str]]]], removed: set[str]) -> set[str]:
        """Puts things to use, and returns the names of those that are new or different."""
        t = self.types[type_url]
        changed = {n for n, (v, _) in given.items() if n not in t.has or t.has[n].version != v}
        for name, (version, refs) in given.items():
            before = t.has.get(name)
            t.has[name] = Has(version, refs)
            if type_url == CLUSTER:
                t.has[name].usable = before is not None and before.usable
                t.has[name].warming = name in changed or (before is not None and before.warming)
            if type_url == ENDPOINTS:
                cluster = self.types[CLUSTER].has.get(name)
                if cluster:
                    cluster.usable, cluster.warming = True, False
            if type_url == ROUTES:
                for _, cluster_name in refs:
                    assert cluster_name in self.types[CLUSTER].has, f"route {name} names {cluster_name}, which is not here"
                    assert self.types[CLUSTER].has[cluster_name].usable, f"route {name} names {cluster_name}, which is cold"
        for name in removed & t.has.keys():  # else the response only says that it does not exist
            del t.has[name]
            for parent in (CLUSTER, SCOPED_ROUTES, ROUTES):
                for other, has in self.types[parent].has.items():
                    assert (type_url, name) not in has.refs or not has.here, f"{name} is removed, and {other} names it"
        return changed

    def _follow(self, type_url: str, changed: set[str]) -> None:
        """Asks for what follows from what it has now. Before it answers: so does an Envoy."""
        if type_url == CLUSTER and not self.types[LISTENER].open:
            self._open(LISTENER)
        if type_url == LISTENER and self.types[LISTENER].has and not self.types[SCOPED_ROUTES].open:
            self._open(SCOPED_ROUTES)
        child = {CLUSTER: ENDPOINTS, SCOPED_ROUTES: ROUTES}.get(type_url)
        if child:
            named = {n for has in self.types[type_url].has.values() for t, n in has.refs if t == child}
            names = self.types[child].names
            again = names & named & changed if child == ENDPOINTS else set()
            self.types[child].causes += Counter(again)
            self._subscribe(child, named - names, names - named)
            if again and not self.delta:
                self._ask(child)  # looks like a duplicate ACK
