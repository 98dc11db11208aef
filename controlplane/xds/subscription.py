"""One type on one stream: the subscription, and the resources that are held, in flight and refused.

Each type has its own subscription on a stream ("Aggregated Discovery Service"). It keeps:

    subscribed   the wildcard, names, or both ("How the client specifies what resources to return")
    held         resources that the client ACKed. Nothing counts as held because it was sent
    in flight    responses that were sent and are not answered yet, by nonce
    refused      resources that the client NACKed, by name, until another content is ACKed in their place (`refusals.py`)
    requested    names to send even if they are held, because the client asked for them (rule 14)
    resend       names to send even if they are held, because the client will need them again (rule 32)

The answer to a response changes them:

    answer                held                                 refused
    ACK                   takes the content of the response    forgets the names of the response
    NACK                  stays                                takes the content of the response
    with another nonce    stays                                stays
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from copy import copy
from typing import cast

from controlplane.envoy_types import CLUSTER
from controlplane.errors import redacted, shortened
from controlplane.snapshot import NOTHING, DiffCache, Resource, Resources
from controlplane.xds.events import Event, Refused
from controlplane.xds.overlay import Names, Overlay, same
from controlplane.xds.refusals import Batch, Contents, Refusals

WILDCARD = "*"
_MOST_NAMES_REPORTED = 100
# Names of which the time of their ACK is known; for the others only a time by which they were ACKed.
_MOST_TIMES = 8


class AckTimes:
    """The times at which the client last ACKed what it holds."""

    __slots__ = ("by_name", "others")

    def __init__(self, now: float) -> None:
        # The newest few names, oldest first.
        self.by_name: dict[str, float] = {}
        # All other names were ACKed by this time.
        self.others = now

    def fork(self) -> AckTimes:
        """Return a copy."""
        other = AckTimes(self.others)
        other.by_name = dict(self.by_name)
        return other

    def note(self, names: Iterable[str], count: int, now: float) -> None:
        """Note that `count` names were ACKed now."""
        if count > _MOST_TIMES:
            self.by_name, self.others = {}, now
            return
        for name in names:
            self.by_name.pop(name, None)
            self.by_name[name] = now
        while len(self.by_name) > _MOST_TIMES:
            self.others = self.by_name.pop(next(iter(self.by_name)))


class Subscription:
    """One type on one stream. `latest` is the newest snapshot's mapping of the type, as of the last `set_latest`."""

    __slots__ = (
        "_explicit",
        "answer_wildcard",
        "held",
        "idle",
        "inflight",
        "last_nonce",
        "latest",
        "names",
        "now",
        "recovery_pending",
        "refused",
        "requested",
        "resend",
        "returning",
        "times",
        "type_url",
        "wildcard",
    )

    def __init__(self, type_url: str, diffs: DiffCache, now: float = 0.0) -> None:
        self.type_url = type_url
        self.now = now
        self.times = AckTimes(now)
        self.latest: Resources = NOTHING
        self.wildcard = False
        # Also names that do not exist: they are sent as soon as they do (rule 15).
        self.names = Names(diffs)
        # The client has subscribed to a name or to `*` on this stream. From then on an empty list is no wildcard.
        self._explicit = False
        self.held = Overlay(diffs)
        self.inflight: dict[str, Batch] = {}
        # "" until a response was sent.
        self.last_nonce = ""
        self.refused = Refusals()
        # The client refused something, and its recovery was not reported yet.
        self.recovery_pending = False
        self.requested: set[str] = set()
        # May contain names that are not subscribed to yet.
        self.resend: set[str] = set()
        # A first wildcard request is answered even with an empty response, so that an Envoy without resources starts.
        self.answer_wildcard = False
        # The client's first request said that it holds something from an earlier stream.
        self.returning = False
        # Nothing can be sent, whatever happens to other types: all subscribed resources are held, and nothing is requested or
        # in flight. Each method that changes this sets it to False; adding to `resend` does not. An idle type costs nothing
        # when other types change.
        self.idle = False

    def fork(self) -> Subscription:
        """Return a copy. Call it only when nothing is refused."""
        other = copy(self)
        other.times, other.names, other.held = self.times.fork(), self.names.fork(), self.held.fork()
        other.inflight = dict(self.inflight)
        other.refused, other.requested, other.resend = Refusals(), set(self.requested), set(self.resend)
        return other

    def fingerprint(self, assumed_complete: bool) -> tuple[object, ...] | None:
        """Return a value that is equal for two subscriptions with the same future behaviour; None if something is pending."""
        pending = self.inflight or self.requested or self.resend or self.answer_wildcard
        if pending or self.refused or self.recovery_pending:
            return None
        names, held = self.names.fingerprint(), self.held.fingerprint()
        if names is None or held is None:
            return None
        flags = (self.wildcard, self._explicit, self.idle, self.returning and not assumed_complete)
        return (self.type_url, flags, names, held)

    # ------------------------------------------------------------------------------------------------ subscription

    def covers(self, name: str) -> bool:
        """Return whether the client subscribes to `name`."""
        return self.wildcard or name in self.names

    def legacy_wildcard(self) -> None:
        """Subscribe to the whole type: the client sent no names, and never named anything on this stream (rule 17)."""
        if not self.wildcard:
            self.wildcard = self.answer_wildcard = True
            self.idle = False

    def subscribe(self, names: Iterable[str], known: Container[str] = ()) -> None:
        """Add names, or `*` (rules 5, 14, 18 and 20).

        Each name will be answered, except those in `known`, which the client holds from an earlier stream.
        """
        for name in names:
            self._explicit = True
            self.idle = False
            if name == WILDCARD:
                self.answer_wildcard = self.answer_wildcard or not self.wildcard
                self.wildcard = True
            elif name:
                self.names.add(name)
                if name not in known:
                    self.requested.add(name)

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Remove names, or `*` (rules 18 and 26). The client drops what it does not subscribe to, so it does not hold that.

        Under the wildcard the client can't tell whether to keep the resource. So the name will be answered ("Unsubscribing
        from Resources"), even if the client subscribed to it only by the wildcard.
        """
        for name in names:
            self.idle = False
            if name == WILDCARD:
                if self.wildcard:
                    self.wildcard = self.answer_wildcard = False
                    every = {*self.held.base, *self.held.over, *self.refused, *self.requested}
                    self._forget(n for n in every if n not in self.names)
                continue
            named = name in self.names
            if named:
                self.names.discard(name)
                self.requested.discard(name)
            if self.wildcard and (named or self.current(name)):
                self.requested.add(name)
            elif named:
                self._forget((name,))

    def set_names(self, names: set[str]) -> None:
        """Subscribe to exactly these names (SotW, rule 16). The new ones will be answered."""
        if self.names.same(names) and not self.wildcard and names:
            return  # the most frequent case: every ACK repeats the list of a large subscription
        explicit = self._explicit
        legacy = self.wildcard and not explicit
        gone = [n for n in self.names if n not in names]
        if not names and not explicit:
            self.legacy_wildcard()
            return
        self.subscribe(n for n in names if n not in self.names)
        self.unsubscribe(gone)
        self.requested.difference_update(gone)  # the next list is complete, so the client does not wait for these
        if (legacy or explicit) and WILDCARD not in names:
            self.unsubscribe((WILDCARD,))
        self._explicit = True

    def _forget(self, names: Iterable[str]) -> None:
        for name in list(names):
            self.held.set(name, None)
            self.refused.pop(name, None)
            self.requested.discard(name)

    # ----------------------------------------------------------------------------------------------------- content

    def set_latest(self, latest: Resources) -> None:
        """Take a newer snapshot's mapping of the type."""
        if latest is not self.latest:
            self.latest, self.idle = latest, False
            if self.refused:
                self.refused.set_latest(latest, self.held)

    @property
    def uses_unacked(self) -> bool:
        """Return whether the client may be using a resource that it was sent and has not ACKed on this stream.

        Not clusters, if the client takes all clusters: its routes wait until those are ACKed. But a returning client may have
        them from before.
        """
        return self.type_url != CLUSTER or not self.wildcard or self.returning

    def stands(self, name: str) -> bool:
        """Return whether the client has refused exactly what it should hold under `name`, and this is not tried again now."""
        return name in self.refused and self.refused.stands(name, self.latest.get(name))

    def current(self, name: str) -> Resource | None:
        """Return the resource that the client will have once it has received everything in flight."""
        for batch in reversed(self.inflight.values()):
            if name in batch.contents or batch.full_state:
                return batch.contents.get(name)
        return self.held.get(name)

    def candidates(self) -> set[str]:
        """Return every name that might have to be sent. An idle type without `resend` has none."""
        if not self.wildcard and self.held.base is NOTHING and self.names.base is NOTHING:
            # A client can name far more resources than exist.
            existing = self.names.more & self.latest.keys()
            return {*existing, *self.held.over, *self.refused, *self.requested, *self.resend}
        return {*self.held.differing(self.latest), *self.refused, *self.requested, *self.resend}

    # ----------------------------------------------------------------------------------------------------- answers

    def sent(self, nonce: str, batch: Batch) -> None:
        """Note that a response was sent."""
        self.inflight[nonce] = batch
        self.last_nonce = nonce
        self.answer_wildcard = self.idle = False
        if batch.full_state:
            self.requested.clear()
            self.resend.clear()
        for waiting in (self.requested, self.resend):
            if waiting:
                waiting.difference_update(batch.contents)

    def ack(self, nonce: str) -> None:
        """Take an ACK (rules 3 and 13). Does nothing if no response with this nonce is in flight."""
        batch = self.inflight.pop(nonce, None)
        if batch is None:
            return
        self.idle = False
        if batch.full_state:
            names = list(self.held.differing(cast(Resources, batch.contents)))
            self.times.note(names, len(names), self.now)
        else:
            self.times.note(batch.contents, len(batch.contents), self.now)
        if self.refused:
            self.refused.acked(batch, self.latest)
        if batch.full_state and self.wildcard:
            self.held.replace(cast(Resources, batch.contents))
            return
        if batch.full_state:
            for name in {*self.held.base, *self.held.over} - batch.contents.keys():
                self.held.set(name, None)
        for name, resource in batch.contents.items():
            if self.covers(name) or resource is None:
                self.held.set(name, resource)

    def nack(self, nonce: str, message: str) -> list[Event]:
        """Take a NACK (rule 29). Does nothing if no response with this nonce is in flight."""
        batch = self.inflight.pop(nonce, None)
        if batch is None:
            return []
        batch = copy(batch)  # forks of this subscription still have the original in flight
        self.idle = False
        names = self.refused.suspect(batch, self.latest, self.held, self.uses_unacked)
        text = shortened(redacted(message.strip()))
        # The client does not use a name from which it has unsubscribed meanwhile.
        self.refused.add(filter(self.covers, names), batch, text, self.now)
        self.recovery_pending = True
        reported = tuple(sorted(batch.contents)[:_MOST_NAMES_REPORTED])
        since = max((self.refused[n].since for n in names if n in self.refused), default=batch.revision)
        return [Refused(self.type_url, reported, text, since)]

    def answered(self) -> bool:
        """Return whether nothing is in flight, and nothing waits for an answer from us."""
        return not (self.inflight or self.requested or self.answer_wildcard)

    def settled(self) -> bool:
        """Return whether nothing is in flight or refused, and nothing waits for an answer from us."""
        return not self.refused and self.answered()

    def compact(self) -> None:
        """Store `held` and `names` as differences from the newest snapshot. Call it when the client holds all of that."""
        if self.wildcard or self.names.base is not NOTHING or 2 * len(self.held.over) >= len(self.latest) > 16:
            self.held.rebase(self.latest)
            self.names.rebase(self.latest)


def changed(sub: Subscription, contents: Contents) -> Iterable[Resource]:
    """Yield the resources of `contents` that may be new to the client: neither held for sure nor in flight."""
    names: Iterable[str] = contents
    if contents is sub.latest and not sub.inflight:
        names = {*sub.held.differing(sub.latest), *sub.refused}
    for name in names:
        content = contents.get(name)
        if content and (name in sub.refused or not same(content, sub.current(name))):
            yield content


def held_resources(sub: Subscription) -> list[Resource]:
    """Return the resources that the client has ACKed and still subscribes to, by name."""
    names = sorted({*sub.held.base, *sub.held.over})
    return [r for n in names if sub.covers(n) and (r := sub.held.get(n)) is not None]
