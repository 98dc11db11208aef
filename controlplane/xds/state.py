"""The state of one stream, for readers. Only `stream.py` changes it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from weakref import ReferenceType

from controlplane.snapshot import NOTHING, Resources, Snapshot
from controlplane.xds.context import Context
from controlplane.xds.subscription import Subscription
from controlplane.xds.view import OtherStreams, StreamView


class StreamState:
    """One stream's data. The node's other streams read it as a `StreamView`.

    It is also a `readiness.ClientView`, for a stream that is the only one of its client.
    """

    def __init__(self, type_url: str, context: Context) -> None:
        self.type_url = type_url
        self.context = context
        # Seconds of any clock that only goes forward, set by the owner before each input. Only `status.py` reads it.
        self.now = 0.0
        # All streams of this stream's node. None while no other stream can belong to the same client.
        self.coordination: OtherStreams | None = None
        # The object that the other streams see instead of this one; None: they see this one. The reference is weak, so that a
        # state is freed by reference count and not by the cycle collector: each revision makes new states (`memo.py`).
        self.owner: ReferenceType[StreamView] | None = None
        # By type URL, in the order of types.
        self._subscriptions: dict[str, Subscription] = {}
        # None until the first offer; requests before it are remembered.
        self._snapshot: Snapshot | None = None
        # True once the client had time to subscribe to all that it wants.
        self._assumed_complete = False

    @property
    def view(self) -> StreamView:
        """This stream, as the others of its node see it."""
        owner = self.owner() if self.owner is not None else None
        return self if owner is None else owner

    @property
    def revision(self) -> int:
        """The revision of the newest snapshot; 0 before there is one."""
        return self._snapshot.revision if self._snapshot is not None else 0

    @property
    def types(self) -> Collection[str]:
        """Type URLs that the client has asked for."""
        return self._subscriptions.keys()

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Every subscription, in the order of types, to be read."""
        return tuple(self._subscriptions.values())

    def subscription(self, type_url: str) -> Subscription | None:
        """Return the subscription to a type, to be read; None if the client has not asked for the type."""
        return self._subscriptions.get(type_url)

    def should_hold(self, type_url: str) -> Resources:
        """Return all resources of a type in the newest snapshot."""
        return NOTHING if self._snapshot is None else self._snapshot.resources.get(type_url, NOTHING)

    @property
    def returning(self) -> bool:
        """Return whether the client holds resources from an earlier stream, and may still have to say which ones."""
        return not self._assumed_complete and any(s.returning for s in self._subscriptions.values())

    @property
    def name_count(self) -> int:
        """The number of names that the client subscribes to."""
        return sum(len(s.names) for s in self._subscriptions.values())

    @property
    def has_refusals(self) -> bool:
        """Return whether the client has refused something, and has not recovered from all of it."""
        return any(sub.refused or sub.recovery_pending for sub in self._subscriptions.values())

    @property
    def awaits_answer(self) -> bool:
        """Return whether a response is in flight."""
        return any(sub.inflight for sub in self._subscriptions.values())

    # -------------------------------------------------------------------------------------- as a `readiness.ClientView`

    def subscriptions_to(self, type_url: str) -> Sequence[Subscription]:
        """Return the subscriptions to a type: one or none."""
        sub = self._subscriptions.get(type_url)
        return () if sub is None else (sub,)

    def parent_subscriptions(self, parent: str, child: str) -> Sequence[Subscription]:
        """Return the subscriptions to type `parent`, which may name resources of type `child`."""
        sub = self._subscriptions.get(parent)
        return () if sub is None else (sub,)

    def had_time(self, type_url: str, name: str) -> bool:
        """Return whether the client had time to ask for a resource. The owner calls `assume_complete` after some seconds."""
        return self._assumed_complete
