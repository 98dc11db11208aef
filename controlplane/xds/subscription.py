"""One type on one stream: what is subscribed to, what is held, what is on its way, what was refused.

Each type has its own sub-stream inside a stream ("Aggregated Discovery Service"). It keeps five things:

    subscribed   the wildcard, names, or both ("How the client specifies what resources to return")
    held         what was ACKed. Nothing counts as held because it was sent
    in flight    what was sent and is not answered yet, by nonce
    refused      what was NACKed, by name, until something else is ACKed in its place ("ACK/NACK and resource type
                 instance version")
    asked, owed  names to send although they are held: the client asked for them anew, or will need them anew

What a response does to them:

    answer       held                          refused
    ACK          takes what the nonce carried  forgets the names that the nonce carried
    NACK         stays                         takes what the nonce carried
    none of ours stays                         stays

A NACK is about a response, not about a resource: Envoy applies what is good of a refused CDS or LDS response and stops at the
first fault in others, and does not say which (envoyproxy/envoy#5739). So of everything that was in a refused response
it is assumed that the client may have it and may not have it, until it ACKs something of that name. As long as a refused
batch is what should be held, it stands and none of it is sent. Once one of its resources has changed, the others are worth
another try. That one goes alone: who mends one thing does not wait for another that is still bad. Then come the others, half
of those that are left at a time; and a half that is refused again is halved in turn, until each that is bad stands refused by
itself and every other is held.

    sent                           comes back      then
    a b c d                        NACK            stands
    (b changes) b                  ACK             a c d are left
    a c                            NACK            a smaller batch: halved
    a                              ACK
    c                              NACK            a batch of one: stands
    d                              ACK

A full state (SotW's CDS, LDS, SRDS) says what there is by what is in it, so all that the client may be using has to be in it:
of what was refused, the version that it held before, and where it held none, what it was sent. Such a state can't be tried in
parts. It goes again, as a whole, when something in it is new. Only new clusters can be left out: no route names them yet.

So nothing goes round: a part is always smaller than the batch that it was in, the same content goes at most 1 + log2(n) times
in answer to one change, and never twice in the same company. Without a change nothing is tried ("ACK and NACK semantics"
asks for something newer), unless the owner calls `Stream.retry_in_parts`, a good while later: an Envoy that starts anew
and is given 1,000 routes in one response, one of them bad, would be without the other 999 until someone mends that one.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import cast

from controlplane.envoy_types import CLUSTER
from controlplane.errors import redacted, shortened
from controlplane.snapshot import Resource
from controlplane.xds.events import Event, Refused
from controlplane.xds.overlay import NOTHING, Names, Overlay, Resources, same

WILDCARD = "*"
# Stands among the refs of content that the client holds and we have never seen: it might name anything.
ANYTHING = ("", WILDCARD)
_NAMES_REPORTED = 100
_REMEMBERED = 8
# Names of which it is known when they were taken; of the others, that it was earlier.
_TAKEN = 8


@dataclass(slots=True, eq=False)
class Batch:
    """What one response carried."""

    revision: int
    # By name; None: the response removed it. Either this stream's own, or a shared mapping.
    contents: Mapping[str, Resource | None]
    # SotW, full state: what is not in `contents` the client does not have, and none of them is None.
    whole: bool = False
    # After a NACK: the names that may be to blame; whether it is to be tried in parts anyway; and whether it is now, since
    # that, or since one of them is something else in the newest snapshot.
    suspects: frozenset[str] = frozenset()
    split: bool = False
    released: bool = False


@dataclass(slots=True, eq=False)
class Refusal:
    """What was refused under one name, since the last ACK of it."""

    # None: its removal.
    content: Resource | None
    batch: Batch
    # Revision as of which just this was refused first.
    since: int
    # What else was refused before that, newest last, none twice; at most `_REMEMBERED`, and then one that stands for all.
    earlier: tuple[Resource, ...] = ()
    # The client's words, and when it said them.
    message: str = ""
    time: float = 0.0
    # Something else was ACKed in its place since: that is what the client has, whatever it took of what it refused.
    replaced: bool = False

    def all_of_it(self) -> tuple[Resource, ...]:
        """Every content that was refused under this name."""
        found = (*self.earlier, self.content) if self.content else self.earlier
        return found if len(found) <= _REMEMBERED else (unseen(found[-1].type_url, found[-1].name, ""),)


def unseen(type_url: str, name: str, version: str) -> Resource:
    """Content of which only the version is known: the client brought it along from an earlier stream."""
    return Resource(type_url, name, version, b"", frozenset((ANYTHING,)))


class Subscription:
    """One type on one stream. `latest` is the newest snapshot's mapping of the type, as of the last `set_latest`."""

    __slots__ = (
        "_explicit",
        "asked",
        "greet",
        "held",
        "idle",
        "inflight",
        "last_nonce",
        "latest",
        "names",
        "now",
        "owed",
        "refused",
        "refusing",
        "returning",
        "taken",
        "taken_by",
        "type_url",
        "wildcard",
    )

    def __init__(self, type_url: str, now: float = 0.0) -> None:
        self.type_url = type_url
        # The time; by name when the client last took what it holds; and the time by which it had taken all else.
        self.now = self.taken_by = now
        self.taken: dict[str, float] = {}
        self.latest: Resources = NOTHING
        self.wildcard = False
        self.names = Names()
        # Whether a name, or `*`, was ever subscribed to: then an empty list is no wildcard any more.
        self._explicit = False
        self.held = Overlay()
        self.inflight: dict[str, Batch] = {}
        # "" until something was sent.
        self.last_nonce = ""
        # By name. Nothing in here counts as held, and all of it may be in use.
        self.refused: dict[str, Refusal] = {}
        self.refusing = False
        self.asked: set[str] = set()
        # Names that may be ones that nothing covers yet.
        self.owed: set[str] = set()
        # A first wildcard request is answered even if there is nothing, so that an Envoy with nothing to do gets going.
        self.greet = False
        # The client said on its first request that it holds something from an earlier stream.
        self.returning = False
        # Whatever the other types do, there is nothing to send: all that is covered is held, and nobody waits for anything.
        # What changes that, but for `owed`, makes it False. A type at rest costs nothing when another is pushed or ACKed.
        self.idle = False

    def fork(self) -> Subscription:
        """Another one in the same state; nothing may stand refused."""
        other = copy(self)
        other.taken, other.names, other.held = dict(self.taken), self.names.fork(), self.held.fork()
        other.inflight = dict(self.inflight)
        other.refused, other.asked, other.owed = {}, set(self.asked), set(self.owed)
        return other

    @property
    def difference_count(self) -> int:
        """In how many names it differs from shared mappings."""
        return len(self.names.more) + len(self.names.less) + len(self.held.over) + len(self.asked) + len(self.owed)

    def fingerprint(self, quiet: bool) -> tuple[object, ...] | None:
        """Equal for two that will do the same from now on; None when something is on its way, refused or owed."""
        if self.inflight or self.asked or self.owed or self.greet or self.refused or self.refusing:
            return None
        names, held = self.names.fingerprint(), self.held.fingerprint()
        if names is None or held is None:
            return None
        flags = (self.wildcard, self._explicit, self.idle, self.returning and not quiet)
        return (self.type_url, flags, names, held)

    # ------------------------------------------------------------------------------------------------ subscription

    def covers(self, name: str) -> bool:
        """Whether the client wants to hear about `name`."""
        return self.wildcard or name in self.names

    def legacy_wildcard(self) -> None:
        """A request without names from a client that has never named anything on this stream: all of the type."""
        if not self.wildcard:
            self.wildcard = self.greet = True
            self.idle = False

    def subscribe(self, names: Iterable[str], known: Container[str] = ()) -> None:
        """Adds names. All are to be answered, but for those that are `known` to the client from an earlier stream."""
        for name in names:
            self._explicit = True
            self.idle = False
            if name == WILDCARD:
                self.greet = self.greet or not self.wildcard
                self.wildcard = True
            elif name:
                self.names.add(name)
                if name not in known:
                    self.asked.add(name)

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Takes names out. What nothing covers any more, the client forgets, and so is no longer held.

        Under the wildcard the client can't tell whether it should go on holding the name, so it is to be answered
        ("Unsubscribing from Resources"), also if it never subscribed to that name by itself.
        """
        for name in names:
            self.idle = False
            if name == WILDCARD:
                if self.wildcard:
                    self.wildcard = self.greet = False
                    self._forget(n for n in self._known() if n not in self.names)
                continue
            named = name in self.names
            if named:
                self.names.discard(name)
                self.asked.discard(name)
            if self.wildcard and (named or self.current(name)):
                self.asked.add(name)
            elif named:
                self._forget((name,))

    def set_names(self, names: set[str]) -> None:
        """SotW: the subscription is exactly these; those that are new are to be answered."""
        if self.names.same(names) and not self.wildcard and names:
            return  # as most often: the list of a large subscription comes with every ACK
        explicit = self._explicit
        legacy = self.wildcard and not explicit
        gone = [n for n in self.names if n not in names]
        if not names and not explicit:
            self.legacy_wildcard()
            return
        self.subscribe(n for n in names if n not in self.names)
        self.unsubscribe(gone)
        self.asked.difference_update(gone)  # the next list is complete, so nobody waits to hear of these
        if (legacy or explicit) and WILDCARD not in names:
            self.unsubscribe((WILDCARD,))
        self._explicit = True

    def _forget(self, names: Iterable[str]) -> None:
        for name in list(names):
            self.held.set(name, None)
            self.refused.pop(name, None)
            self.asked.discard(name)

    def _known(self) -> set[str]:
        return {*self.held.base, *self.held.over, *self.refused, *self.asked}

    # ----------------------------------------------------------------------------------------------------- content

    def set_latest(self, latest: Resources) -> None:
        """There is a newer snapshot."""
        if latest is not self.latest:
            self.latest, self.idle = latest, False
            for batch in {r.batch for r in self.refused.values()}:
                self._release(batch)
            for name in [n for n, r in self.refused.items() if r.replaced and same(self.held.get(n), latest.get(n))]:
                del self.refused[name]  # it has been taken back, and the client has what it should

    def _release(self, batch: Batch) -> None:
        batch.released = batch.split or any(not same(batch.contents.get(n), self.latest.get(n)) for n in batch.suspects)

    def retry_in_parts(self) -> None:
        """What was refused along with others, and still stands, is tried in parts, to find out which of them is bad."""
        for batch in {r.batch for n, r in self.refused.items() if self.stands(n)}:
            batch.split = self._divisible(batch)
            self._release(batch)

    def portion(self, changes: dict[str, Resource | None]) -> dict[str, Resource | None]:
        """Which of these to send in one response: what was refused before does not go with what was not."""
        again = [n for n, r in changes.items() if n in self.refused and n not in self.asked and self._is_refused(n, r)]
        lost = self.uses_unacked and any(self.refused[n].batch.whole and not self.held.get(n) for n in again)
        if not again or lost:
            return changes
        if len(again) < len(changes):
            return {n: changes[n] for n in changes.keys() - set(again)}
        batch = self.refused[min(again)].batch
        left = sorted(n for n in again if self.refused[n].batch is batch)
        return {n: changes[n] for n in left[: (len(left) + 1) // 2]}

    def _divisible(self, batch: Batch) -> bool:
        """Whether it can be tried in parts. Not a full state, if the client would lose by it what it may be using."""
        if batch.whole and self.uses_unacked and any(batch.contents.get(n) and not self.held.get(n) for n in batch.suspects):
            return False
        return len(batch.suspects) > 1

    @property
    def uses_unacked(self) -> bool:
        """Whether a client may be using what it was sent and has not ACKed on this stream.

        Not clusters, of one that takes them all: its routes wait until they are ACKed. But then it may have them from before.
        """
        return self.type_url != CLUSTER or not self.wildcard or self.returning

    def _is_refused(self, name: str, content: Resource | None) -> bool:
        return same(self.refused[name].content, content)

    def stands(self, name: str) -> bool:
        """Whether what should be held under `name` is what was refused."""
        if name not in self.refused or not self._is_refused(name, self.latest.get(name)):
            return False
        batch = self.refused[name].batch
        return not batch.released or name not in batch.suspects  # the latter is in no part of it

    def may_be_gone(self, name: str) -> bool:
        """Whether the client has refused a response that removed `name`; it may have removed it all the same."""
        return name in self.refused and self.refused[name].content is None

    def current(self, name: str) -> Resource | None:
        """What the client has, once everything in flight has arrived."""
        for batch in reversed(self.inflight.values()):
            if name in batch.contents or batch.whole:
                return batch.contents.get(name)
        return self.held.get(name)

    def holds(self) -> list[Resource]:
        """What the client has ACKed and still wants, by name."""
        names = sorted({*self.held.base, *self.held.over})
        return [r for n in names if self.covers(n) and (r := self.held.get(n)) is not None]

    def candidates(self) -> set[str]:
        """Every name at which something might have to be sent; on a quiet stream with nothing new, none."""
        if not self.wildcard and self.held.base is NOTHING and self.names.base is NOTHING:
            # A client can name far more than there is.
            there = self.names.more & self.latest.keys()
            return {*there, *self.held.over, *self.refused, *self.asked, *self.owed}
        return {*self.held.differing(self.latest), *self.refused, *self.asked, *self.owed}

    def stale(self) -> Iterator[Resource]:
        """What the client may hold or may soon hold, and should not, or no longer."""
        for name in set(self.held.differing(self.latest)):
            if (content := self.held.get(name)) and not same(content, self.latest.get(name)):
                yield content
        for batch in self.inflight.values():
            yield from self._stale(batch.contents)
        for refusal in self.refused.values():
            yield from refusal.earlier
        yield from self._stale({n: refusal.content for n, refusal in self.refused.items()})

    def _stale(self, contents: Mapping[str, Resource | None]) -> Iterator[Resource]:
        if contents is not self.latest:
            yield from (c for n, c in contents.items() if c and not same(c, self.latest.get(n)))

    # ----------------------------------------------------------------------------------------------------- answers

    def sent(self, nonce: str, batch: Batch) -> None:
        """A response is on its way."""
        self.inflight[nonce] = batch
        self.last_nonce = nonce
        self.greet = self.idle = False
        if batch.whole:
            self.asked.clear()
            self.owed.clear()
        for waiting in (self.asked, self.owed):
            if waiting:
                waiting.difference_update(batch.contents)

    def ack(self, nonce: str) -> None:
        """The client has taken a response. Not one of ours in flight: nothing happens."""
        batch = self.inflight.pop(nonce, None)
        if batch is None:
            return
        self.idle = False
        self._note_taken(batch)
        refused = [n for n in self.refused if n in batch.contents or batch.whole]
        for name in refused:
            # Kept where something else was sent in place of what was refused, and that is still what should be held.
            refusal, given, latest = self.refused[name], batch.contents.get(name), self.latest.get(name)
            if same(refusal.content, latest) and not same(refusal.content, given) and name in refusal.batch.suspects:
                refusal.replaced = True
            else:
                del self.refused[name]
        if batch.whole and self.wildcard:
            self.held.replace(cast(Resources, batch.contents))
            return
        if batch.whole:
            for name in {*self.held.base, *self.held.over} - batch.contents.keys():
                self.held.set(name, None)
        for name, resource in batch.contents.items():
            if self.covers(name) or resource is None:
                self.held.set(name, resource)

    def is_news(self, nonce: str) -> bool:
        """Whether a response brought something under a name that the client had nothing under."""
        batch = self.inflight.get(nonce)
        return batch is not None and any(r and self.held.get(n) is None for n, r in batch.contents.items())

    def _note_taken(self, batch: Batch) -> None:
        names = list(self.held.differing(cast(Resources, batch.contents))) if batch.whole else batch.contents
        if len(names) > _TAKEN:
            self.taken, self.taken_by = {}, self.now
            return
        for name in names:
            self.taken.pop(name, None)
            self.taken[name] = self.now
        while len(self.taken) > _TAKEN:
            self.taken_by = self.taken.pop(next(iter(self.taken)))

    def nack(self, nonce: str, message: str) -> list[Event]:
        """The client has refused a response. Not one of ours in flight: nothing happens."""
        batch = self.inflight.pop(nonce, None)
        if batch is None:
            return []
        batch = copy(batch)  # forks have it in flight still
        self.idle = False
        contents = batch.contents
        suspects = {n for n in contents if not same(contents[n], self.held.get(n))}
        if batch.whole:
            suspects |= {n for n in (*self.held.base, *self.held.over) if n not in contents and self.held.get(n)}
        # What was refused before otherwise, and is by now as this has it: this was the answer, and it was refused as well.
        answered = self.refused if batch.whole else self.refused.keys() & contents.keys()
        suspects |= {n for n in answered if same(contents.get(n), self.latest.get(n))}
        names = suspects or set(contents)
        # What is absent from a full state, and was not held, is absent from each part of it too.
        batch.suspects = frozenset(n for n in names if not batch.whole or contents.get(n) or self.held.get(n))
        again = all(n in self.refused and self._is_refused(n, contents.get(n)) for n in batch.suspects)
        batch.split = again and self._divisible(batch)
        self._release(batch)
        words = shortened(redacted(message.strip()))
        for name in filter(self.covers, names):  # what it has dropped meanwhile, it does not use either
            before = self.refused.get(name)
            known = before is not None and same(before.content, contents.get(name))
            since = before.since if before is not None and known else batch.revision
            earlier = tuple(r for r in before.all_of_it() if not same(r, contents.get(name))) if before else ()
            self.refused[name] = Refusal(contents.get(name), batch, since, earlier, words, self.now)
        self.refusing = True
        named = tuple(sorted(contents)[:_NAMES_REPORTED])
        since = max((self.refused[n].since for n in names if n in self.refused), default=batch.revision)
        return [Refused(self.type_url, named, words, since)]

    def settled(self) -> bool:
        """Whether nothing is on its way, refused, or to be answered."""
        return not self.refused and self.answered()

    def answered(self) -> bool:
        """Whether nothing is on its way, or to be answered."""
        return not (self.inflight or self.asked or self.greet)

    def lacks(self, name: str) -> bool:
        """Whether something that should be held under `name` is not, though it was not refused."""
        latest = self.latest.get(name)
        return latest is not None and self.covers(name) and not self.stands(name) and not same(self.held.get(name), latest)

    def compact(self) -> None:
        """The client holds what it should: says so by pointing at the snapshot."""
        if self.wildcard or self.names.base is not NOTHING or 2 * len(self.held.over) >= len(self.latest) > 16:
            self.held.rebase(self.latest)
            self.names.rebase(self.latest)


def changed(sub: Subscription, contents: Mapping[str, Resource | None]) -> Iterator[Resource]:
    """What of `contents` may be news to the client: neither held for sure nor on its way."""
    names: Iterable[str] = contents
    if contents is sub.latest and not sub.inflight:
        names = {*sub.held.differing(sub.latest), *sub.refused}
    for name in names:
        content = contents.get(name)
        if content and (name in sub.refused or not same(content, sub.current(name))):
            yield content
