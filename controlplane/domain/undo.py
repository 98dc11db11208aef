"""Undo: return a model to its previous split.

Each undo takes back one change of the model's split, and changes nothing else. The history is read from the newest revision to
the oldest:

| revision | the search |
|---|---|
| leaves the split as it was | goes on |
| is an undo of this model | skips one more change, the one that this undo took back |
| changes the split, and a change is to be skipped | skips it and goes on |
| changes the split | ends: the split before this revision is the previous one |
| creates the model | ends: there is nothing to undo |

So `undo; undo` goes two steps back, and never forward again. A switch after an undo is a change like any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controlplane.domain.etag import check_etag, live_etag
from controlplane.domain.model import Model
from controlplane.domain.revision import Action, Head, Revision
from controlplane.domain.switch import live_model, moves_traffic
from controlplane.errors import failed_precondition, stale_etag


class UndoSearch:
    """The search for the change of a model's split that the next undo takes back."""

    def __init__(self, name: str) -> None:
        self.name = name
        # The revision to undo. None if it was not found.
        self.revision: Revision | None = None
        # True once the result is known: the revision was found, or the model was created without a split to go back to.
        self.ended = False
        # The number of changes that undos took back, and that the search has still to skip.
        self._skip = 0

    def add(self, revisions: Iterable[Revision]) -> None:
        """Search more revisions that changed the model, newest first, until the search ends."""
        for revision in revisions:
            old, new = revision.changes[self.name]
            if not isinstance(old, Model) or not isinstance(new, Model):
                self.ended = True
            elif old.split != new.split:
                self._add_change(revision)
            if self.ended:
                return

    def _add_change(self, revision: Revision) -> None:
        if revision.draft.action is Action.UNDO:
            self._skip += 1
        elif self._skip:
            self._skip -= 1
        else:
            self.revision, self.ended = revision, True


def undo(head: Head, label: str, newest: int, revision: Revision | None, etag: str = "", *, force: bool = False) -> Model:
    """Return the model with its previous split: the one before `revision`, the result of an `UndoSearch`.

    `newest` is the number of the newest revision that changed the model when the search ran.

    Errors: NOT_FOUND at `model`; at `etag` as in the table in `switch.py`; ABORTED / STALE_ETAG if the model changed since the
    search; FAILED_PRECONDITION / NOTHING_TO_UNDO, CANNOT_UNDO at `model`.
    """
    live = live_model(head, label)
    name = live.resource_name
    check_etag(head, name, etag, force=force)
    if not etag and not force:
        raise moves_traffic(name, "etag", "an undo moves live traffic")
    if head.meta[name].revision != newest:
        raise stale_etag(name, f"{head.history}-{newest}", live_etag(head, name))
    if revision is None:
        description = (
            "there is no earlier split: this is the one that the model was created with. `turnout switch` or `turnout split` "
            "moves its traffic to another version"
        )
        raise failed_precondition("NOTHING_TO_UNDO", "model", description, name=name)
    before, _ = revision.changes[name]
    assert isinstance(before, Model)
    for version in before.split:
        endpoints = next((v.endpoints for v in live.versions if v.name == version), None)
        if not endpoints:
            problem = "does not exist any more" if endpoints is None else "has no endpoints any more"
            description = f"version '{version}', which had traffic before revision {revision.number}, {problem}"
            raise failed_precondition("CANNOT_UNDO", "model", description, name=name)
    return replace(live, split=before.split)
