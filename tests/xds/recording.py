"""Record what the xDS cores send: conversations with a fixed course, and a line for each response and event.

    python -m tests.xds.recording FILE          write the recording of this tree

`testdata/bddd395.txt` was recorded from commit bddd395, before the cores were split and renamed. `test_recording.py` compares
this tree with it: a response is the same if size, hash and nonce are. To record it again, check out bddd395 elsewhere, copy
this file and `recording_clients.py` into its `tests/xds/`, and run the command there: `api_of_bddd395` knows the names of that
commit.

The conversations are random, with fixed seeds:

    transcript      every file of `transcripts/` that bddd395 has, without and with the memo (there twice, on one memo)
    envoys          three streams that take everything over ADS, at their own pace, with NACKs, reconnects and TTLs
    named           clients like gRPC's own: they name their listener, and then everything that it needs
    node            one client that takes its types over several streams, which open and close
    odd             requests of any kind: stale nonces, names that are unsubscribed and requested again, initial versions

Nonces come from a counter that starts at 1 in each conversation, so the recording does not depend on the order of tests.
"""

from __future__ import annotations

import importlib
import itertools
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

from controlplane.errors import Error
from controlplane.snapshot import Snapshot
from tests.xds import transcript
from tests.xds.recording_clients import TYPES, Ads, Api, Log, Node, RandomSnapshots, Stream, node

HERE = Path(__file__).parent


def api_of_bddd395() -> Api:
    """The names in commit bddd395."""
    stream, delta, sotw, separate, shared = (
        importlib.import_module(f"controlplane.xds.{name}") for name in ("stream", "delta", "sotw", "separate", "shared")
    )

    def begin() -> Callable[[str, str, int, bool], Any]:
        stream.__dict__["_nonces"] = itertools.count(1)
        book = shared.Book()

        def make(kind: str, type_url: str, ttl: int, memo: bool) -> Any:
            core = delta.DeltaStream if kind == "delta" else sotw.SotwStream
            return shared.SharedStream(core, type_url, ttl, book) if memo else core(type_url, ttl)

        return make

    return Api(begin, separate.Separate, "quiet", "again", "isolate", "node", "begins", "moved", "overdue", "tick")


def api_of_today() -> Api:
    """The names in this tree."""
    context, delta, sotw, coordination, memo = (
        importlib.import_module(f"controlplane.xds.{name}") for name in ("context", "delta", "sotw", "coordination", "memo")
    )

    def begin() -> Callable[[str, str, int, bool], Any]:
        shared = context.Context()
        transitions = memo.TransitionMemo(shared)

        def make(kind: str, type_url: str, ttl: int, memoised: bool) -> Any:
            core = delta.DeltaStream if kind == "delta" else sotw.SotwStream
            if memoised:
                return memo.MemoisedStream(core, type_url, ttl, memo=transitions)
            return core(type_url, ttl, shared)

        return make

    return Api(
        begin,
        coordination.Coordination,
        "assume_complete",
        "reconsider",
        "retry_in_parts",
        "coordination",
        "before_first_request",
        "after_request",
        "take_overdue",
        "set_time",
    )


# ------------------------------------------------------------------------------------------------------------ transcripts


class _Recorded(transcript.Transcript):
    """A transcript that logs all events, errors and responses."""

    log: Log

    def act(self, step: str) -> Any:
        try:
            events = super().act(step)
        except Error as error:
            self.log.error(error)
            raise
        self.log.events(events)
        return events

    def response(self, data: bytes) -> str:
        kind = discovery_pb2.DiscoveryResponse if self.variant == "sotw" else discovery_pb2.DeltaDiscoveryResponse
        message = kind.FromString(data)
        self.log.sent(data, message.nonce, message.type_url)
        return super().response(data)


def record_transcript(api: Api, name: str) -> list[str]:
    """Play a transcript without the memo, and twice with it."""
    log = Log()
    text = (HERE / "transcripts" / f"{name}.txt").read_text()
    make = api.begin()
    kept: dict[tuple[int, str], Snapshot] = {}
    original = transcript.snapshot

    def once(revision: int, text: str) -> Snapshot:
        return kept.setdefault((revision, text), original(revision, text))

    transcript.__dict__["snapshot"] = once  # the memo knows snapshots by identity
    try:
        for memoised in (False, True, True):
            conversation = _Recorded(text)
            conversation.log = log
            conversation.stream = make(conversation.variant, conversation.stream.type_url, conversation.ttl, memoised)
            conversation.run()
            log.lines.append("")
    finally:
        transcript.__dict__["snapshot"] = original
    return log.lines[:-1]


# -------------------------------------------------------------------------------------------------------------- clients


def record_ads(api: Api, name: str) -> list[str]:
    """Three clients with one kind of stream; named `envoys-KIND-MEMO-SEED` or `named-KIND-MEMO-SEED`."""
    what, kind, memo, seed = name.split("-")
    log, rng = Log(), random.Random(name)
    make = api.begin()
    ttl = 9 if int(seed) % 3 == 0 else 0
    snapshots = RandomSnapshots(rng)

    def open_stream() -> Any:
        return make(kind, "", ttl, memo == "memo")

    def client(number: int) -> Ads:
        chance = random.Random(f"{name} {number if int(seed) % 2 else 0}")
        return Ads(str(number), kind, chance, open_stream, log, what == "named")

    clients = [client(number) for number in range(3)]
    snapshot: Snapshot | None = None
    now = 0.0
    for _ in range(300):
        now += 0.1
        one = rng.choice(clients)
        one.stream.core.now = now
        p = rng.random()
        if p < 0.07:
            snapshot = snapshots.next()
            for each in clients:
                each.stream.do("offer", snapshot)
        elif p < 0.10:
            one.stream.do(api.assume_complete)
        elif p < 0.13:
            one.stream.do(api.retry_in_parts)
        elif p < 0.15:
            one.stream.do("heartbeat")
        elif p < 0.17 or one.stream.over:
            one.connect(snapshot)
        elif p < 0.18:
            one.stream.do(api.reconsider)
        else:
            for _ in range(rng.randint(1, 4)):
                one.act(memo == "memo")
    return log.lines


def record_node(api: Api, name: str) -> list[str]:
    """One node with several streams; named `node-KIND-MEMO-SEED`."""
    log = Log()
    client = Node(api, name, log)
    client.snapshots = RandomSnapshots(random.Random(f"{name} worlds"), simple=True)
    for way in client.way:
        client.open(way)
    for _ in range(250):
        client.act()
    return log.lines


def record_odd(api: Api, name: str) -> list[str]:
    """One stream that receives requests of any kind; named `odd-KIND-MEMO-SEED`."""
    _, kind, memo, seed = name.split("-")
    log, rng = Log(), random.Random(name)
    make = api.begin()
    snapshots = RandomSnapshots(random.Random(f"{name} worlds"))
    service = TYPES[rng.choice(sorted(TYPES))] if int(seed) % 3 == 2 else ""
    stream = Stream(log, "", kind, make(kind, service, 0, memo == "memo"))
    seen: list[Snapshot] = []
    for _ in range(160):
        p = rng.random()
        if p < 0.1:
            seen.append(snapshots.next())
            stream.do("offer", seen[-1])
        elif p < 0.12:
            stream.do(api.assume_complete)
        elif p < 0.15:
            stream.do(api.retry_in_parts)
        elif p < 0.16:
            stream.do("heartbeat")
        else:
            type_url = service or TYPES[rng.choice(sorted(TYPES))]
            names = rng.sample(["a", "b", "c", "d", "e", "l", "m", "n", "o", "tls", "x", "*", ""], rng.randint(0, 3))
            nonces = [*stream.nonces.get(type_url, []), "", "999999"]
            fields: dict[str, Any] = {"response_nonce": rng.choice(nonces[-4:]), "node": node("n")}
            if rng.random() < 0.25:
                fields["error_detail"] = {"code": 3, "message": "odd"}
            if stream.delta:
                gone = rng.sample("abcmn*", rng.randint(0, 2)) if rng.random() < 0.3 else []
                known = [r for s in seen[-2:] for r in s.resources[type_url].values() if rng.random() < 0.5]
                fields |= {"resource_names_subscribe": names if rng.random() < 0.6 else [], "resource_names_unsubscribe": gone}
                fields["initial_resource_versions"] = {r.name: r.version for r in known}
            else:
                stream.names[type_url] = set(names)
                if seen and rng.random() < 0.5:
                    stream.version[type_url] = seen[-1].versions[type_url]
            stream.outbox.append(stream.request(type_url, **fields))
            stream.send(memo == "memo")
            stream.inbox.clear()
        if stream.over:
            stream.core, stream.over = make(kind, service, 0, memo == "memo"), False
            stream.nonces.clear()
    return log.lines


RECORDERS = {"envoys": record_ads, "named": record_ads, "node": record_node, "odd": record_odd}


def names_of_conversations() -> Iterator[str]:
    """Yield the name of every conversation of the recording, except for the transcripts."""
    for what, seeds in (("envoys", 6), ("named", 3), ("node", 12), ("odd", 6)):
        for kind in ("delta", "sotw"):
            for memo in ("plain", "memo"):
                if not (what == "named" and kind == "delta"):
                    yield from (f"{what}-{kind}-{memo}-{seed}" for seed in range(seeds))


def record(api: Api, name: str) -> list[str]:
    """Return the lines of one conversation."""
    recorder = RECORDERS.get(name.partition("-")[0])
    return record_transcript(api, name) if recorder is None else recorder(api, name)


def read(path: Path) -> dict[str, list[str]]:
    """Return a recording: lines by the name of the conversation."""
    blocks = path.read_text().split("== ")[1:]
    return {block.partition("\n")[0]: block.partition("\n")[2].split("\n")[:-1] for block in blocks}


def main(path: str) -> None:
    """Write the recording of this tree."""
    try:
        api = api_of_today()
    except ModuleNotFoundError:
        api = api_of_bddd395()
    names = [*sorted(p.stem for p in (HERE / "transcripts").glob("*.txt")), *names_of_conversations()]
    Path(path).write_text("".join(f"== {name}\n" + "".join(line + "\n" for line in record(api, name)) for name in names))


if __name__ == "__main__":
    main(sys.argv[1])
