"""NACKs: the resources that a client refused, and which of them to try again.

A NACK is about a response, not about a resource. Envoy applies the good resources of a refused CDS or LDS response, and stops
at the first bad one of other types, and it does not say which one is bad (envoyproxy/envoy#5739). So for every resource of a
refused response, the client may have it or may not have it, until the client ACKs a response with that name. As long as a
refused batch is exactly what the client should hold, it *stands*, and none of it is sent. Once one of its resources has
changed, the others are worth another try. The changed resource goes alone: fixing one resource does not wait for another
resource that is still bad. Then the others follow, half of the remaining ones at a time. A half that is refused again is
halved in turn, until each bad resource stands refused by itself and every other one is held (rule 8):

    sent             answer    then
    a b c d          NACK      all four stand refused, until `b` changes
    b                ACK       `a`, `c` and `d` remain. Half of them is tried
    a c              NACK      a smaller batch, which is halved
    a                ACK
    c                NACK      a batch of one: it stands refused
    d                ACK

In a full state (SotW's CDS, LDS, SRDS) an absent resource is deleted, so everything that the client may be using has to be in
it: for a refused resource the version that the client held before, or if it held none, the version that was sent. Such a
state can't be tried in parts. It is sent again, as a whole, when something in it is new. Only new clusters can be left out,
because no route names them yet.

The search ends: a part is always smaller than the batch that it was in. The same content is sent at most 1 + log2(n) times for
one change, and never twice with the same other resources. Without a change nothing is tried ("ACK and NACK semantics" asks for
something newer), unless the owner calls `Stream.retry_in_parts` a while later. Otherwise an Envoy that starts anew, and
gets 1,000 routes in one response, would be without 999 routes until someone fixes the bad one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from controlplane.snapshot import Resource, Resources
from controlplane.xds.overlay import Overlay, same

# A reference to anything: the `refs` of a resource whose content is unknown contain it.
ANYTHING = ("", "*")
# Earlier refused contents of a name that are kept, at most. If there are more, one of unknown content replaces them all.
_MOST_REMEMBERED = 8

Contents = Mapping[str, Resource | None]


@dataclass(slots=True, eq=False)
class Batch:
    """The content of one response."""

    revision: int
    # By name; None: the response removes it. Either this stream's own mapping, or a shared one.
    contents: Contents
    # A SotW full state: the client does not have a resource that is not in `contents`, and no value is None.
    full_state: bool = False
    # After a NACK: the names that may be bad.
    suspects: frozenset[str] = frozenset()
    # After a NACK: try the suspects in parts, even if none of them changes.
    split: bool = False
    # After a NACK: try the suspects in parts now, because of `split`, or because one has changed in the newest snapshot.
    released: bool = False

    def release(self, latest: Resources) -> None:
        """Set `released`."""
        self.released = self.split or any(not same(self.contents.get(n), latest.get(n)) for n in self.suspects)


@dataclass(slots=True, eq=False)
class Refusal:
    """The refused contents of one name, since the last ACK of it."""

    # None: the client refused its removal.
    content: Resource | None
    batch: Batch
    # The first revision of which the client refused this content.
    since: int
    # Contents that were refused before, newest last, none twice. At most `_MOST_REMEMBERED`; see there.
    earlier: tuple[Resource, ...] = ()
    # The client's error message, and when it was received.
    message: str = ""
    time: float = 0.0
    # The client ACKed other content in its place since. So it has that one, even if it had applied the refused one.
    replaced: bool = False

    def contents(self) -> tuple[Resource, ...]:
        """Return every content that was refused under this name."""
        contents = (*self.earlier, self.content) if self.content else self.earlier
        if len(contents) <= _MOST_REMEMBERED:
            return contents
        return (unseen(contents[-1].type_url, contents[-1].name, ""),)


def unseen(type_url: str, name: str, version: str) -> Resource:
    """Return a resource of which only the version is known: the client holds it from an earlier stream."""
    return Resource(type_url, name, version, b"", frozenset((ANYTHING,)))


class Refusals(dict[str, Refusal]):
    """The refusals of one type on one stream, by name. No refused content counts as held, but the client may use it."""

    __slots__ = ()

    def is_refused(self, name: str, content: Resource | None) -> bool:
        """Return whether this content is the refused one. There must be a refusal of the name."""
        return same(self[name].content, content)

    def stands(self, name: str, latest: Resource | None) -> bool:
        """Return whether a refusal stands: `latest`, the newest content of `name`, was refused and is not tried again now."""
        if name not in self or not self.is_refused(name, latest):
            return False
        batch = self[name].batch
        return not batch.released or name not in batch.suspects  # only suspects are in the parts

    def may_be_gone(self, name: str) -> bool:
        """Return whether the client refused a response that removed `name`. It may have removed the resource nevertheless."""
        return name in self and self[name].content is None

    def set_latest(self, latest: Resources, held: Overlay) -> None:
        """Take a newer snapshot's mapping of the type."""
        for batch in {r.batch for r in self.values()}:
            batch.release(latest)
        for name in [n for n, r in self.items() if r.replaced and same(held.get(n), latest.get(n))]:
            del self[name]  # the change was undone, and the client holds the right content

    def retry_in_parts(self, latest: Resources, held: Overlay, uses_unacked: bool) -> None:
        """Release each batch that still stands, so that its parts are tried and the bad resources found."""
        for batch in {r.batch for n, r in self.items() if self.stands(n, latest.get(n))}:
            batch.split = _divisible(batch, held, uses_unacked)
            batch.release(latest)

    def portion(
        self, changes: dict[str, Resource | None], requested: Collection[str], held: Overlay, uses_unacked: bool
    ) -> dict[str, Resource | None]:
        """Return the changes to send in the next response: new contents first, then parts of the refused ones (rule 8)."""
        retried = [n for n, r in changes.items() if n in self and n not in requested and self.is_refused(n, r)]
        would_delete = uses_unacked and any(self[n].batch.full_state and not held.get(n) for n in retried)
        if not retried or would_delete:
            return changes
        if len(retried) < len(changes):
            return {n: changes[n] for n in changes.keys() - set(retried)}
        batch = self[min(retried)].batch
        remaining = sorted(n for n in retried if self[n].batch is batch)
        return {n: changes[n] for n in remaining[: (len(remaining) + 1) // 2]}

    def acked(self, batch: Batch, latest: Resources) -> None:
        """Forget the refusals of the names in an ACKed response."""
        for name in [n for n in self if n in batch.contents or batch.full_state]:
            # Keep a refusal if the response had other content, and the refused content is still the newest.
            refusal, sent, wanted = self[name], batch.contents.get(name), latest.get(name)
            if same(refusal.content, wanted) and not same(refusal.content, sent) and name in refusal.batch.suspects:
                refusal.replaced = True
            else:
                del self[name]

    def suspect(self, batch: Batch, latest: Resources, held: Overlay, uses_unacked: bool) -> set[str]:
        """Set the suspects of a NACKed response, and whether to try it in parts. Returns the names that count as refused."""
        contents = batch.contents
        suspects = {n for n in contents if not same(contents[n], held.get(n))}
        if batch.full_state:
            suspects |= {n for n in (*held.base, *held.over) if n not in contents and held.get(n)}
        # Names that were refused before, and have their newest content in this response: it was meant to mend the refusal, and
        # was refused too.
        answers = self if batch.full_state else self.keys() & contents.keys()
        suspects |= {n for n in answers if same(contents.get(n), latest.get(n))}
        names = suspects or set(contents)
        # A name that was not held and is absent from a full state is absent from each part of it too, so it is no suspect.
        batch.suspects = frozenset(n for n in names if not batch.full_state or contents.get(n) or held.get(n))
        again = all(n in self and self.is_refused(n, contents.get(n)) for n in batch.suspects)
        batch.split = again and _divisible(batch, held, uses_unacked)
        batch.release(latest)
        return names

    def add(self, names: Iterable[str], batch: Batch, message: str, time: float) -> None:
        """Note that a client has refused the content of a batch under these names."""
        for name in names:
            content, before = batch.contents.get(name), self.get(name)
            repeated = before is not None and same(before.content, content)
            since = before.since if before is not None and repeated else batch.revision
            earlier = tuple(r for r in before.contents() if not same(r, content)) if before else ()
            self[name] = Refusal(content, batch, since, earlier, message, time)


def _divisible(batch: Batch, held: Overlay, uses_unacked: bool) -> bool:
    """Return whether a batch can be tried in parts. Not a full state, if the client would lose what it may be using."""
    if batch.full_state and uses_unacked and any(batch.contents.get(n) and not held.get(n) for n in batch.suspects):
        return False
    return len(batch.suspects) > 1
