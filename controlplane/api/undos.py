"""Undos of models: the revisions that they take back, as the history has them, and the answer that names those revisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.api.convert.revision import revision_to_proto
from controlplane.domain import Model
from controlplane.domain.collections import resource_name
from controlplane.domain.revision import Head, Revision
from controlplane.domain.undo import UndoSearch, undo
from controlplane.errors import Collector
from controlplane.generated.turnout.v1 import model_service_pb2 as pb
from controlplane.store import Store

# Revisions that are read from the store at once, fewer in the first read, which is nearly always enough.
_FIRST_CHUNK, _CHUNK = 4, 50
# Other models that an answer names for one model.
_MAX_OTHER_MODELS = 100


class Undos:
    """The undos of one request, as of one revision. `labels` are the models in the order of the request."""

    def __init__(self, labels: Sequence[str], searches: Mapping[str, UndoSearch], newest: Mapping[str, int]) -> None:
        self._labels = labels
        self._searches = searches
        # By label: the newest revision that changed the model.
        self._newest = newest

    @property
    def target(self) -> int:
        """The number of the revision that is undone; 0 if they are different ones, or if there is none."""
        numbers = {search.revision.number if search.revision else 0 for search in self._searches.values()}
        return numbers.pop() if len(numbers) == 1 else 0

    def models(self, head: Head, request: pb.UndoModelsRequest) -> dict[str, Model]:
        """Return the models with their previous splits, by name. Errors: those of `undo`, at fields of the request."""
        c = Collector()
        models: dict[str, Model] = {}
        for i, (label, one) in enumerate(zip(self._labels, request.undos, strict=True)):
            with c.within(f"undos[{i}]"):
                revision = self._searches[label].revision
                model = undo(head, label, self._newest[label], revision, one.etag, force=request.force)
                models[model.resource_name] = model
        c.check()
        return models

    def messages(self) -> list[pb.UndoneChange]:
        """Return what was undone, in the order of the request."""
        undone = []
        for label in self._labels:
            name, revision = resource_name(Model, label), self._searches[label].revision
            if revision is not None:
                others = other_models(revision, name)[:_MAX_OTHER_MODELS]
                message = revision_to_proto(revision, changes=False)
                undone.append(pb.UndoneChange(model=name, revision=message, other_models=others))
        return undone


def other_models(revision: Revision, name: str) -> list[str]:
    """Return the resource names of the other models whose splits a revision changed."""
    return sorted(
        other
        for other, (old, new) in revision.changes.items()
        if other != name and isinstance(old, Model) and isinstance(new, Model) and old.split != new.split
    )


async def find_undos(store: Store, labels: Sequence[str], before: int) -> Undos:
    """Return what undos of models take back, as of the revision before `before`."""
    searches: dict[str, UndoSearch] = {}
    newest: dict[str, int] = {}
    for label in labels:
        name = resource_name(Model, label)
        search = searches[label] = UndoSearch(name)
        below, count = before, _FIRST_CHUNK
        while not search.ended:
            revisions = await store.revisions(below, count, name)
            newest.setdefault(label, revisions[0].number if revisions else 0)
            search.add(revisions)
            if len(revisions) < count:
                break
            below, count = revisions[-1].number, _CHUNK
    return Undos(labels, searches, newest)
