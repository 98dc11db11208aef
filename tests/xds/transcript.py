"""Play conversations that are written as text. Each line is an input, or an expected result of it.

    offer 2: cds a=1(a) b=1; eds a=1; rds r=2(a b)     a snapshot, revision 2. For each type: NAME=CONTENT(NAMES), where NAMES
                                                       are the resources that it refers to; `sds:k` is a secret
    > eds +a -b *  has c=1  ack                        delta request: subscribe, unsubscribe, initial version, answer
    > eds a b  ack                                     SotW request: the names, and the answer
    < eds a=1 -b                                       delta response: resources, removed; sorted
    < cds a=1 b=1                                      SotW response
    ! held 2                                           an event; `held 3 but 2`: Settled at 3, what is refused is of 2 or older
    assume-complete                                    call `Stream.assume_complete`
    retry-in-parts                                     call `Stream.retry_in_parts`
    heartbeat                                          call `Stream.heartbeat`. In a response, `a=1~` is a resource without its
                                                       body, and `for 9s` is a TTL

`ack` and `nack` answer the newest response of the type, `ack-1` the previous one; `nonce X` sends any nonce. `version X` sends
a SotW version, `version of N` the version of the type in the snapshot with revision N. All results of an input must follow it:
events first, then responses, in their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.envoy_types import CLUSTER, COMPILED, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.errors import Error
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.xds.delta import DeltaStream
from controlplane.xds.events import Blocked, Claimed, Event, Held, HeldBack, Identified, Oversized, Recovered, Refused, Settled
from controlplane.xds.sotw import SotwStream
from controlplane.xds.wire import WRAPPER

TYPES = {**{t.abbreviation: t.url for t in COMPILED.values()}, "none": ""}
SHORT = {url: short for short, url in TYPES.items()}
FEATURES = {"ttl": "xds.config.supports-resource-ttl", "in-sotw": "xds.config.resource-in-sotw"}
NAMES = {CLUSTER: ENDPOINTS, LISTENER: ROUTES, SCOPED_ROUTES: ROUTES, ROUTES: CLUSTER}
RESOURCE = re.compile(r"(?P<name>[^=\s]+)=(?P<content>[^(\s;]+)(?:\((?P<refs>[^)]*)\))?")


def resource(type_url: str, name: str, content: str, refs: str = "") -> Resource:
    """Return a resource whose body has its type, name and content."""
    body = f"{SHORT[type_url]}/{name}/{content}".encode()
    return Resource.of(type_url, name, body, (_ref(type_url, r) for r in refs.split()))


def _name_and_content(body: bytes) -> tuple[str, str]:
    """Return the name and the content in a body of `resource`. A scope's name has a slash."""
    name, _, content = body.decode().partition("/")[2].rpartition("/")
    return name, content


def _ref(type_url: str, text: str) -> tuple[str, str]:
    short, colon, name = text.rpartition(":")
    return (TYPES[short] if colon else NAMES[type_url], name)


def snapshot(revision: int, text: str) -> Snapshot:
    """Return the snapshot of an `offer` line."""
    resources = []
    for part in filter(str.strip, text.split(";")):
        short, _, entries = part.strip().partition(" ")
        resources += [resource(TYPES[short], *match.groups("")) for match in RESOURCE.finditer(entries)]
    return Snapshot.of(revision, Audience(), resources)


class Transcript:
    """One conversation. `run` raises AssertionError if it differs from the text."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        first = next(line for line in self.lines if line and not line.startswith("#"))
        self.variant, *options = first.split()
        service = next((TYPES[o] for o in options if o in TYPES), "")
        self.ttl = next((int(o.removeprefix("ttl=")) for o in options if o.startswith("ttl=")), 0)
        self.stream = (DeltaStream if self.variant == "delta" else SotwStream)(service, self.ttl)
        self.snapshots: dict[int, Snapshot] = {}
        self.nonces: dict[str, list[str]] = {}
        self.version: dict[str, str] = {}

    def run(self) -> None:
        expected: list[str] = []
        got: list[str] = []
        at = 0
        for number, line in enumerate([*self.lines, "assume-complete"], 1):
            step = " ".join(line.split("#")[0].split())
            if not step or step.startswith(self.variant):
                continue
            if step[0] in "<!":
                expected.append(step)
                continue
            assert got == expected, f"line {at}: {self.lines[at - 1]}\n  expected {expected}\n  but got  {got}"
            if number > len(self.lines):
                return
            expected, at = [], number
            got = list(self.play(step))

    def play(self, step: str) -> Iterator[str]:
        try:
            events = self.act(step)
        except Error as error:
            yield f"! error {error.code.name} {error.reason}"
            return
        yield from (f"! {event}" for event in map(self.event, events) if event)
        yield from map(self.response, self.stream.to_send())

    def act(self, step: str) -> list[Event]:
        if step == "assume-complete":
            return self.stream.assume_complete()
        if step == "retry-in-parts":
            return self.stream.retry_in_parts()
        if step == "heartbeat":
            self.stream.heartbeat()
            return []
        if step.startswith("offer"):
            head, _, text = step.partition(":")
            revision = int(head.split()[1])
            self.snapshots[revision] = snapshot(revision, text)
            return self.stream.offer(self.snapshots[revision])
        assert step.startswith("> "), step
        return self.stream.receive(self.request(step[2:].split()))

    def request(self, words: list[str]) -> Any:
        type_url = TYPES.get(words[0], words[0])
        fields: dict[str, Any] = {"type_url": type_url}
        names: list[str] = []
        subscribe: list[str] = []
        unsubscribe: list[str] = []
        has: dict[str, str] = {}
        nonces = self.nonces.get(type_url, [])
        words = words[1:]
        while words:
            word = words.pop(0)
            if match := re.fullmatch(r"(n?)ack(-\d+)?", word):
                fields["response_nonce"] = nonces[int(match[2] or 0) - 1]
                if match[1]:
                    fields["error_detail"] = {"code": 3, "message": "no good"}
            elif word == "nonce":
                fields["response_nonce"] = words.pop(0)
            elif word == "node":
                node_id, _, features = words.pop(0).partition("/")  # `n/ttl,in-sotw`: with these features
                given = [FEATURES[f] for f in features.split(",") if f]
                fields["node"] = base_pb2.Node(id=node_id, cluster="c", user_agent_name="envoy", client_features=given)
            elif word == "version":
                fields["version_info"] = words.pop(0)
                if fields["version_info"] == "of":
                    fields["version_info"] = self.snapshots[int(words.pop(0))].versions[type_url]
            elif word == "has":
                while words and "=" in words[0]:
                    name, _, content = words.pop(0).partition("=")
                    has[name] = resource(type_url, name, content).version
            elif self.variant == "sotw":
                names.append(word.strip('"'))
            elif word[0] == "-":
                unsubscribe.append(word[1:])
            else:
                subscribe.append(word.removeprefix("+").strip('"'))
        if self.variant == "sotw":
            return discovery_pb2.DiscoveryRequest(resource_names=names, **fields)
        return discovery_pb2.DeltaDiscoveryRequest(
            resource_names_subscribe=subscribe, resource_names_unsubscribe=unsubscribe, initial_resource_versions=has, **fields
        )

    def response(self, data: bytes) -> str:
        message: Any
        if self.variant == "sotw":
            message = discovery_pb2.DiscoveryResponse.FromString(data)
            bodies = []
            for entry in message.resources:
                if entry.type_url == WRAPPER:
                    entry = discovery_pb2.Resource.FromString(entry.value)
                    bodies.append(self.wrapped(message, entry))
                else:
                    assert entry.type_url == message.type_url
                    bodies.append(entry.value)
            assert message.version_info or not bodies
            removed: list[str] = []
        else:
            message = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
            bodies = [self.wrapped(message, r) for r in message.resources]
            removed = [f"-{n}" for n in sorted(message.removed_resources)]
        nonces = self.nonces.setdefault(message.type_url, [])
        assert message.nonce
        assert message.nonce not in nonces
        nonces.append(message.nonce)
        contents = sorted("=".join(_name_and_content(body)) for body in bodies)
        return " ".join(["<", SHORT[message.type_url], *contents, *removed])

    def wrapped(self, message: Any, entry: Any) -> bytes:
        """Return the body of a resource that has its name, version and TTL; for a heartbeat, a body that is marked as one."""
        assert entry.version
        if entry.HasField("resource"):
            assert entry.resource.type_url == message.type_url
            body: bytes = entry.resource.value
            assert entry.name == _name_and_content(body)[0]
            return body + (b" for %ds" % entry.ttl.seconds if entry.HasField("ttl") else b"")
        assert entry.HasField("ttl")
        known = (s.resources[message.type_url].get(entry.name) for s in self.snapshots.values())
        body = next(r.body for r in known if r and r.version == entry.version)
        return body + b"~ for %ds" % entry.ttl.seconds

    def event(self, event: Event) -> str:
        match event:
            case Identified(id=node_id):
                return f"identified {node_id}" if node_id else ""
            case Held(revision=revision):
                return f"held {revision}"
            case Claimed(type_url=type_url, names=names):
                return " ".join(["claims", SHORT[type_url], *(sorted(names) if names is not None else ["anything"])])
            case HeldBack(revision=revision):
                return f"held back at {revision}" if revision else "held back no longer"
            case Settled(revision=revision, since=since):
                return f"held {revision} but {since}"
            case Blocked(revision=revision):
                return f"blocked {revision}"
            case Refused(type_url=type_url, resources=resources, message=message, revision=revision):
                assert message == "no good"
                return " ".join(["refused", SHORT[type_url], str(revision), *resources])
            case Recovered(type_url=type_url):
                return f"recovered {SHORT[type_url]}"
            case Oversized(type_url=type_url):
                return f"oversized {SHORT[type_url]}"


def play(path: Path) -> None:
    """Play a file."""
    Transcript(path.read_text()).run()
