"""Desired state, and both ends of replication with the undelivered messages between them."""

from __future__ import annotations

import asyncio
import pickle
from collections import deque
from collections.abc import Callable

from controlplane.compiler import Compiler
from controlplane.domain import Endpoint, Gateway, Model, Object, Version
from controlplane.domain.revision import Head
from controlplane.domain.state import Changes, State
from controlplane.published import CompiledRevision
from controlplane.snapshot import Audience, Client, Snapshot
from controlplane.workers.replication import AudienceUpdate, Update
from controlplane.workers.snapshot_receiver import ReceivedRevision, SnapshotReceiver
from controlplane.workers.snapshot_sender import SnapshotSender, UpdateEncoder

EDGE = Audience(("edge",))
EDGE_GRPC = Audience(("edge",), Client.GRPC)
EDGE_MODEL_B = Audience(("edge",), models=frozenset("b"))
AUDIENCES = [EDGE, Audience(("inner",)), EDGE_GRPC, EDGE_MODEL_B, Audience()]


def model(name: str, blue: int = 10_000, port: int = 9001) -> Model:
    """Return a model whose version blue has this share, in basis points."""
    versions = (Version("blue", (Endpoint("127.0.0.1", port),)), Version("green", (Endpoint("127.0.0.1", 9002),)))
    split = {"blue": blue, "green": 10_000 - blue} if blue < 10_000 else {"blue": blue}
    return Model(name, versions=versions, gateways=("edge",), split=split)


class Desired:
    """Desired state, and its published revision."""

    def __init__(self, *objects: Object) -> None:
        edge = Gateway("edge", port=10_000)
        state = State().applied(Changes({o.resource_name: o for o in (edge, *objects)}))
        self.head = Head(1, state)
        self.published = CompiledRevision(self.head, Compiler())

    def change(self, **objects: Object | None) -> CompiledRevision:
        """Publish the next revision; objects by collection and label, `models_a`."""
        changes = Changes({name.replace("_", "/"): o for name, o in objects.items()})
        self.head = Head(self.head.number + 1, self.head.state.applied(changes))
        self.published = self.published.next(self.head)
        return self.published


class Replica:
    """A sender, a receiver, and the messages between them."""

    def __init__(self, encoder: UpdateEncoder) -> None:
        self.sender = SnapshotSender(encoder)
        self.receiver = SnapshotReceiver(
            lambda audience: self.subscriptions.append((True, audience)),
            lambda audience: self.subscriptions.append((False, audience)),
        )
        # Undelivered messages to the sender: (subscribe, audience).
        self.subscriptions: deque[tuple[bool, Audience]] = deque()
        # Undelivered messages to the receiver.
        self.updates: deque[bytes] = deque()
        self.received: ReceivedRevision | None = None

    @property
    def revision(self) -> ReceivedRevision:
        """Return the newest revision that was received."""
        assert self.received is not None
        return self.received

    def deliver_subscriptions(self) -> None:
        """Deliver the worker's messages to the sender."""
        while self.subscriptions:
            subscribe, audience = self.subscriptions.popleft()
            (self.sender.subscribe if subscribe else self.sender.unsubscribe)(audience)

    def send(self, published: CompiledRevision) -> int:
        """Send an update, and return its size in bytes; 0 when there is nothing to send."""
        update = self.sender.update(published)
        if update is None:
            return 0
        self.updates.append(pickle.dumps(update))
        return len(self.updates[-1])

    def send_decoded(self, published: CompiledRevision) -> list[AudienceUpdate]:
        """Send an update, and return its parts."""
        update = self.sender.update(published)
        assert update is not None
        self.updates.append(pickle.dumps(update))
        return [pickle.loads(part) for part in update.audience_updates]

    def apply(self) -> None:
        """Deliver the updates to the receiver."""
        while self.updates:
            update = pickle.loads(self.updates.popleft())
            assert isinstance(update, Update)
            self.received = self.receiver.apply(update)

    def settle(self, published: CompiledRevision) -> None:
        """Deliver all messages, also those that are sent because of them."""
        while True:
            self.deliver_subscriptions()
            self.send(published)
            if not self.updates:
                return
            self.apply()

    def snapshot(self, published: CompiledRevision, audience: Audience) -> Snapshot:
        """Return the snapshot of an audience once it has arrived."""
        self.settle(published)
        snapshot = self.revision.snapshot(audience)
        if snapshot is None:
            self.settle(published)
            snapshot = self.revision.snapshot(audience)
        assert snapshot is not None
        return snapshot


def started(*objects: Object) -> tuple[Desired, Replica]:
    """Return desired state, and a worker that has received nothing yet."""
    return Desired(*objects), Replica(UpdateEncoder(fail))


def fail(audience: Audience, error: Exception) -> None:
    """Fail the test: an audience does not compile."""
    raise AssertionError(f"{audience} does not compile") from error


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a state of another process."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  another process does not notify this one
            await asyncio.sleep(0.002)
