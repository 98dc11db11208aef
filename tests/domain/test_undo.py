"""The search for the change that an undo takes back, and the undo."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from controlplane.domain import Endpoint, Gateway, Model, Version
from controlplane.domain.revision import Action, Draft, Head, Revision
from controlplane.domain.state import Changes
from controlplane.domain.undo import UndoSearch, undo
from controlplane.errors import Error

VERSIONS = tuple(Version(name, (Endpoint("127.0.0.1", 80),)) for name in ("blue", "green", "red"))
IRIS = Model("iris", ("edge",), VERSIONS, {"blue": 10_000})


class History:
    """The revisions of one model."""

    def __init__(self) -> None:
        self.head = Head(history="7a0b93c1")
        self.revisions: list[Revision] = []
        self.commit(Action.APPLY, {"gateways/edge": Gateway("edge", 80), "models/iris": IRIS})

    def commit(self, action: Action, objects: Mapping[str, Model | Gateway | None]) -> None:
        draft = Draft("ann", "", action)
        changes = {name: (self.head.state.get(name), obj) for name, obj in objects.items()}
        self.head = self.head.after(Changes(objects), draft)
        self.revisions.append(Revision(self.head.number, draft, changes))

    def split(self, action: Action = Action.SWITCH, /, **split: int) -> None:
        live = self.head.state.models["iris"]
        self.commit(action, {"models/iris": Model("iris", ("edge",), live.versions, split)})

    def search(self) -> UndoSearch:
        search = UndoSearch("models/iris")
        for revision in reversed(self.revisions):
            if not search.ended and "models/iris" in revision.changes:
                search.add([revision])
        return search

    def undo(self) -> Model:
        newest = self.head.meta["models/iris"].revision
        return undo(self.head, "iris", newest, self.search().revision, force=True)

    def commit_undo(self) -> dict[str, int]:
        model = self.undo()
        self.commit(Action.UNDO, {"models/iris": model})
        return dict(model.split)


def test_undo_goes_one_step_further_back_each_time() -> None:
    history = History()
    history.split(green=10_000)
    history.split(red=10_000)
    assert history.commit_undo() == {"green": 10_000}
    assert history.commit_undo() == {"blue": 10_000}
    with pytest.raises(Error, match="there is no earlier split: this is the one that the model was created with") as caught:
        history.undo()
    assert (caught.value.reason, caught.value.violations[0].field) == ("NOTHING_TO_UNDO", "model")


def test_a_switch_after_an_undo_is_undone_first() -> None:
    history = History()
    history.split(green=10_000)
    history.commit_undo()
    history.split(red=10_000)
    assert history.commit_undo() == {"blue": 10_000}
    assert history.search().revision is None


def test_a_change_that_leaves_the_split_is_no_step() -> None:
    history = History()
    history.split(green=10_000)
    live = history.head.state.models["iris"]
    history.commit(Action.UPDATE, {"models/iris": Model("iris", ("edge",), VERSIONS, live.split, keys=("k",))})
    model = history.undo()
    assert (dict(model.split), model.keys) == ({"blue": 10_000}, ("k",))


@pytest.mark.parametrize("action", [Action.APPLY, Action.UPDATE, Action.REVERT, Action.REVERT_REVISION])
def test_every_other_way_to_change_the_split_is_a_step(action: Action) -> None:
    history = History()
    history.split(action, green=10_000)
    assert history.commit_undo() == {"blue": 10_000}


def test_the_history_ends_where_the_model_was_created() -> None:
    history = History()
    history.split(green=10_000)
    history.commit(Action.DELETE, {"models/iris": None})
    history.commit(Action.CREATE, {"models/iris": IRIS})
    search = history.search()
    assert (search.revision, search.ended) == (None, True)


def test_random_histories_are_a_stack_of_splits() -> None:
    for seed in range(50):
        choose = random.Random(seed)
        history, stack = History(), [{"blue": 10_000}]
        for _ in range(30):
            if choose.random() < 0.5 and len(stack) > 1:
                stack.pop()
                assert history.commit_undo() == stack[-1]
            else:
                share = choose.choice([s for s in range(0, 10_001, 2_500) if s != stack[-1].get("green", 0)])
                stack.append({name: value for name, value in (("blue", 10_000 - share), ("green", share)) if value})
                history.split(Action.SWITCH, **stack[-1])


def test_a_split_that_is_not_possible_any_more() -> None:
    for versions, problem in (
        ((VERSIONS[1],), "does not exist any more"),
        ((Version("blue"), VERSIONS[1]), "has no endpoints any more"),
    ):
        history = History()
        history.split(green=10_000)
        history.commit(Action.APPLY, {"models/iris": Model("iris", ("edge",), versions, {"green": 10_000})})
        with pytest.raises(Error, match=f"version 'blue', .* before revision 2, {problem}") as caught:
            history.undo()
        assert caught.value.reason == "CANNOT_UNDO"


def test_an_undo_needs_the_live_etag_or_force_and_a_fresh_search() -> None:
    history = History()
    history.split(green=10_000)
    revision = history.search().revision
    for etag, force, newest, reason in (
        ("", False, 2, "MOVES_TRAFFIC"),
        ("7a0b93c1-1", False, 2, "STALE_ETAG"),
        ("", True, 1, "STALE_ETAG"),
    ):
        with pytest.raises(Error) as caught:
            undo(history.head, "iris", newest, revision, etag, force=force)
        assert caught.value.reason == reason
    assert undo(history.head, "iris", 2, revision, "7a0b93c1-2").split == {"blue": 10_000}
    with pytest.raises(Error, match="models/wine does not exist"):
        undo(history.head, "wine", 0, None, force=True)
