"""NACKs: the resources that a client refused, and which of them to try again.

A NACK is about a response, not about a resource. Envoy applies the good resources of a refused CDS or LDS response, and stops
at the first bad one of other types, and it does not say which one is bad (envoyproxy/envoy#5739). So for every resource of a
refused response, the client may have it or may not have it, until the client ACKs a response with that name. As long as a
refused batch is exactly what the client should hold, it *stands*, and none of it is sent. Once one of its resources has
changed, the others are worth another try. The changed resource goes alone: fixing one resource does not wait for another
resource that is still bad. Then the others follow, half of the remaining ones at a time. A half that is refused again is
halved in turn, until each bad resource stands refused by itself and every other one is held:

    sent                           answer          then
    a b c d                        NACK            all four stand refused
    (b changes) b                  ACK             a c d are left
    a c                            NACK            a smaller batch: halved
    a                              ACK
    c                              NACK            a batch of one: stands
    d                              ACK

In a full state (SotW's CDS, LDS, SRDS) an absent resource is deleted, so everything that the client may be using has to be in
it: for a refused resource the version that the client held before, or if it held none, the version that was sent. Such a
state can't be tried in parts. It is sent again, as a whole, when something in it is new. Only new clusters can be left out,
because no route names them yet.

The search ends: a part is always smaller than the batch that it was in. The same content is sent at most 1 + log2(n) times for
one change, and never twice with the same other resources. Without a change nothing is tried ("ACK and NACK semantics" asks for
something newer), unless the owner calls `Stream.retry_in_parts` a good while later. Otherwise an Envoy that starts anew, and
gets 1,000 routes in one response, would be without 999 routes until someone fixes the bad one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from controlplane.snapshot import Resource, Resources
from controlplane.xds.overlay import Overlay, same

# A client may hold any content under this reference: it stands among the `refs` of a resource whose content is unknown.
ANYTHING = ("", "*")
# Earlier refused contents of a name that are remembered; one more, and a resource of unknown content stands for all.
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
    # After a NACK: the names that may be bad; whether to try them in parts although none changed; and whether to try them in
    # parts now, because of that or because one of them has changed in the newest snapshot.
    suspects: frozenset[str] = frozenset()
    split: bool = False
    released: bool = False

    def release(self, latest: Resources) -> None:
        """Find out whether its parts may be tried."""
        self.released = self.split or any(not same(self.contents.get(n), latest.get(n)) for n in self.suspects)


@dataclass(slots=True, eq=False)
class Refusal:
    """The refused contents of one name, since the last ACK of it."""

    # None: the client refused its removal.
    content: Resource | None
    batch: Batch
    # The revision as of which this content was refused first.
    since: int
    # Contents that were refused before, newest last, none twice; at most `_MOST_REMEMBERED`, then one that stands for all.
    earlier: tuple[Resource, ...] = ()
    # The client's error message, and when it was received.
    message: str = ""
    time: float = 0.0
    # Another content was ACKed in its place since: so the client has that, whatever it took of the refused response.
    replaced: bool = False

    def contents(self) -> tuple[Resource, ...]:
        """Return every content that was refused under this name."""
        contents = (*self.earlier, self.content) if self.content else self.earlier
        if len(contents) <= _MOST_REMEMBERED:
            return contents
        return (unseen(contents[-1].type_url, contents[-1].name, ""),)


def unseen(type_url: str, name: str, version: str) -> Resource:
    """Return a resource of which only the version is known: the client brought it along from an earlier stream."""
    return Resource(type_url, name, version, b"", frozenset((ANYTHING,)))


class Refusals(dict[str, Refusal]):
    """The refusals of one type on one stream, by name. None of them counts as held, and all of them may be in use."""

    __slots__ = ()

    def is_refused(self, name: str, content: Resource | None) -> bool:
        """Return whether this content is the refused one. There must be a refusal of the name."""
        return same(self[name].content, content)

    def stands(self, name: str, latest: Resource | None) -> bool:
        """Return whether `latest`, which the client should hold under `name`, is the refused content and not to be tried."""
        if name not in self or not self.is_refused(name, latest):
            return False
        batch = self[name].batch
        return not batch.released or name not in batch.suspects  # the latter is in no part of it

    def may_be_gone(self, name: str) -> bool:
        """Return whether the client refused a response that removed `name`. It may have removed it all the same."""
        return name in self and self[name].content is None

    def set_latest(self, latest: Resources, held: Overlay) -> None:
        """Take a newer snapshot's mapping of the type."""
        for batch in {r.batch for r in self.values()}:
            batch.release(latest)
        for name in [n for n, r in self.items() if r.replaced and same(held.get(n), latest.get(n))]:
            del self[name]  # the change was taken back, and the client holds the right content

    def retry_in_parts(self, latest: Resources, held: Overlay, uses_unacked: bool) -> None:
        """Let each batch that still stands be tried in parts, to find out which of its resources are bad."""
        for batch in {r.batch for n, r in self.items() if self.stands(n, latest.get(n))}:
            batch.split = _divisible(batch, held, uses_unacked)
            batch.release(latest)

    def portion(
        self, changes: dict[str, Resource | None], requested: Collection[str], held: Overlay, uses_unacked: bool
    ) -> dict[str, Resource | None]:
        """Return the changes to send in one response: refused contents do not go with others."""
        again = [n for n, r in changes.items() if n in self and n not in requested and self.is_refused(n, r)]
        lost = uses_unacked and any(self[n].batch.full_state and not held.get(n) for n in again)
        if not again or lost:
            return changes
        if len(again) < len(changes):
            return {n: changes[n] for n in changes.keys() - set(again)}
        batch = self[min(again)].batch
        left = sorted(n for n in again if self[n].batch is batch)
        return {n: changes[n] for n in left[: (len(left) + 1) // 2]}

    def acked(self, batch: Batch, latest: Resources) -> None:
        """Forget the refusals of the names that an ACKed response carried."""
        for name in [n for n in self if n in batch.contents or batch.full_state]:
            # Keep a refusal if another content was sent in its place, and the refused one is still what the client should
            # hold.
            refusal, sent, wanted = self[name], batch.contents.get(name), latest.get(name)
            if same(refusal.content, wanted) and not same(refusal.content, sent) and name in refusal.batch.suspects:
                refusal.replaced = True
            else:
                del self[name]

    def suspect(self, batch: Batch, latest: Resources, held: Overlay, uses_unacked: bool) -> set[str]:
        """Find the suspects of a NACKed response, and whether to try it in parts. Returns the names that count as refused."""
        contents = batch.contents
        suspects = {n for n in contents if not same(contents[n], held.get(n))}
        if batch.full_state:
            suspects |= {n for n in (*held.base, *held.over) if n not in contents and held.get(n)}
        # A name that was refused in another version before, and should be by now as in this response: the response answered
        # the NACK, and was refused as well.
        answers = self if batch.full_state else self.keys() & contents.keys()
        suspects |= {n for n in answers if same(contents.get(n), latest.get(n))}
        names = suspects or set(contents)
        # A resource that is absent from a full state, and was not held, is absent from each part of it too.
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
