"""An honest client: it behaves like an Envoy that takes clusters, endpoints, a listener, scopes and routes over ADS.

It subscribes to the resources that its resources name, warms clusters, refuses bad resources and then keeps the old ones, and
reports what it holds when it reconnects. It checks that each resource is usable at the moment when it arrives, and raises
AssertionError if not.
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
    """Return a resource that this client can read."""
    refs = sorted(refs)
    body = json.dumps({"name": name, "content": content, "refs": refs, "bad": bad}).encode()
    return Resource.of(type_url, name, body, refs)


@dataclass
class Has:
    """One resource in use."""

    version: str
    refs: set[tuple[str, str]]
    # Received on the current stream, not on an earlier one.
    here: bool = True
    # Only for clusters: whether it can serve, and whether it waits for endpoints.
    usable: bool = False
    warming: bool = False


@dataclass
class Type:
    """One type: the resources in use, the accepted ones, and the state of the conversation."""

    has: dict[str, Has] = field(default_factory=dict)
    # Version by name of the accepted resources. The client sends these when it reconnects.
    accepted: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    open: bool = False
    nonce: str = ""
    version: str = ""
    # By name: how often the server may send a resource although the client already uses this version.
    causes: Counter[str] = field(default_factory=Counter)
    # The client has refused something on this stream. Since then the server may have to send resources that it already has.
    has_refused: bool = False


class Client:
    """One client; the requests it wants to send are in `outbox`."""

    def __init__(self, variant: str) -> None:
        self.delta = variant == "delta"
        self.types = {t: Type() for t in ORDER}
        self.outbox: deque[Any] = deque()
        # A refused response was applied in part, so the accepted versions may differ from those in use.
        self.partly_applied = False
        self.connect()

    # ------------------------------------------------------------------------------------------------------ requests

    def connect(self) -> None:
        """Open a new stream, and send what the client holds. The old stream and everything in flight on it are lost."""
        self.outbox.clear()
        if self.partly_applied:
            self.types, self.partly_applied = {t: Type(open=t == CLUSTER) for t in ORDER}, False
        self.types[CLUSTER].open = True
        node = base_pb2.Node(id="n", cluster="c")
        for type_url, t in self.types.items():
            t.nonce, t.has_refused = "", False
            t.causes = Counter() if self.delta else Counter(t.names)
            for name, has in t.has.items():
                has.here = self.delta
                if has.warming and name in self.types[ENDPOINTS].has:
                    # After 15 s Envoy uses the endpoints that it has. The server can't know that it waits.
                    has.usable, has.warming = True, False
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
        """SotW: send the whole subscription."""
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
        """Delta: ask again for a name that the client already subscribes to."""
        t = self.types[type_url]
        if self.delta and t.open and name in t.names:
            t.causes[name] += 1
            self.outbox.append(discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=[name]))

    # ----------------------------------------------------------------------------------------------------- responses

    def take(self, data: bytes) -> None:
        """Take a response, and answer it."""
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
            # Envoy stops at the first bad resource, and applies those before it.
            taken = {n: given[n] for n in sorted(given) if n < bad[0]}
        else:
            taken = {n: g for n, g in given.items() if n not in bad}
        wanted = taken if type_url in WILDCARD else {n: g for n, g in taken.items() if n in t.names}
        changed = self._apply(type_url, {n: (v, {tuple(r) for r in m["refs"]}) for n, (v, m) in wanted.items()}, removed)
        if bad:
            self.partly_applied = self.partly_applied or bool(changed) or bool(removed)
            t.causes += Counter(given.keys() | removed)
            t.has_refused = True
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
        # The server sends the endpoints again with each cluster that was refused, because the client may have applied it.
        rewarmed = type_url == ENDPOINTS and self.types[CLUSTER].has_refused
        for name, (version, _) in given.items():
            unchanged = name in t.has and t.has[name].version == version
            news = news or not unchanged or t.causes[name] > 0
            if self.delta or type_url not in WILDCARD:
                assert not unchanged or t.causes[name] > 0 or rewarmed, f"{name} was sent again without cause"
            if unchanged and t.causes[name]:
                t.causes[name] -= 1  # but the answer may be a later response, if this one was in flight when the client asked
        first = not t.accepted and not t.has
        assert news or first or t.has_refused or rewarmed or +t.causes, f"a {type_url} response without news"

    def _apply(self, type_url: str, given: dict[str, tuple[str, set[tuple[str, str]]]], removed: set[str]) -> set[str]:
        """Use these resources. Returns the names of those that are new or different."""
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
        for name in removed & t.has.keys():  # for other names the response only means that they do not exist
            del t.has[name]
            for parent in (CLUSTER, SCOPED_ROUTES, ROUTES):
                for other, has in self.types[parent].has.items():
                    assert (type_url, name) not in has.refs or not has.here, f"{name} is removed, and {other} names it"
        return changed

    def _follow(self, type_url: str, changed: set[str]) -> None:
        """Subscribe to what the new resources name. As an Envoy does, before the ACK."""
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
