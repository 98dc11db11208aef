"""A noun that exists only in this test. Its class and a row of the table are enough for the domain and the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from controlplane.domain import Model, Object, collections, describe, state
from controlplane.domain.collections import Collection, alternatives, parse_name
from controlplane.domain.references import Reference
from controlplane.domain.state import Changes, State
from controlplane.errors import Error
from controlplane.store import codec
from tests.store.opening import open_store
from tests.store.places import EDGE, IRIS, commit, draft


@dataclass(frozen=True, slots=True)
class Weekly:
    """One of two classes of a schedule."""

    day: int = 1


@dataclass(frozen=True, slots=True)
class Daily:
    """The other class of a schedule."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A noun that refers to a model."""

    collection: ClassVar[str] = "schedules"

    name: str
    model: str
    rhythm: Weekly | Daily = Daily()
    pauses: Mapping[str, int] = field(default_factory=dict)

    @property
    def resource_name(self) -> str:
        return f"{self.collection}/{self.name}"

    @property
    def references(self) -> tuple[Reference, ...]:
        return (Reference("model", Model.collection, self.model),)


ROW = Collection(cast("Any", Schedule), "schedule", unions={"rhythm": {"weekly": Weekly, "daily": Daily}})
NIGHTLY = Schedule("nightly", "iris", Weekly(3), {"easter": 2})
NAME = NIGHTLY.resource_name


@pytest.fixture(autouse=True)
def _row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the row to the table."""
    rows = (*collections.COLLECTIONS, ROW)
    monkeypatch.setattr(collections, "COLLECTIONS", rows)
    monkeypatch.setattr(state, "COLLECTIONS", rows)
    monkeypatch.setitem(cast("dict[str, Collection]", collections.BY_NAME), "schedules", ROW)
    monkeypatch.setitem(cast("dict[Any, Collection]", collections.BY_NOUN), Schedule, ROW)
    monkeypatch.setitem(cast("dict[str, Any]", codec._CODECS), "schedules", codec._noun_codec(ROW))


def changes(*objects: Object | Schedule, deleted: tuple[str, ...] = ()) -> Changes:
    return Changes(cast("Any", {**{o.resource_name: o for o in objects}, **dict.fromkeys(deleted)}))


def all_three() -> State:
    return State().applied(changes(EDGE, IRIS, NIGHTLY))


def test_a_state_can_hold_the_new_noun() -> None:
    whole = all_three()
    assert whole.of(cast("Any", Schedule)) == {"nightly": NIGHTLY}
    assert whole.get(NAME) is cast("Any", NIGHTLY)
    assert [o.resource_name for o in whole.objects()] == ["gateways/edge", "models/iris", NAME]
    assert State().changes_to(whole) == changes(EDGE, IRIS, NIGHTLY)
    assert whole.applied(changes(deleted=(NAME, "models/iris", "gateways/edge"))) == State()


def test_error_texts_name_the_new_noun() -> None:
    assert parse_name(NAME) == (ROW, "nightly")
    assert alternatives() == "gateway, model, secret or schedule"
    with pytest.raises(Error, match="schedules/hourly does not exist; there are: nightly"):
        all_three().require(cast("Any", Schedule), "hourly")


def test_the_references_of_the_new_noun_are_checked() -> None:
    with pytest.raises(Error, match=r"schedules/nightly\.model: models/iris does not exist"):
        State().applied(changes(NIGHTLY))
    with pytest.raises(Error, match="models/iris can't be deleted while schedules/nightly use it") as caught:
        all_three().applied(changes(deleted=("models/iris",)))
    assert caught.value.reason == "MODEL_IN_USE"


def test_a_change_of_the_new_noun_is_described() -> None:
    later = dataclasses.replace(NIGHTLY, pauses={"easter": 5})
    assert describe.lines(cast("Any", NIGHTLY), cast("Any", later)) == ["pauses: easter 2 -> easter 5"]


async def test_the_store_can_hold_the_new_noun(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await commit(store, 0, changes(EDGE, IRIS, NIGHTLY), draft())
    head = await commit(store, 1, changes(dataclasses.replace(NIGHTLY, rhythm=Daily())), draft())
    await store.close()
    store = await open_store(tmp_path)
    assert store.head.value == head
    assert (await store.at(1)).state.get(NAME) == cast("Any", NIGHTLY)
    assert [r.number for r in await store.revisions(10, 10, NAME)] == [2, 1]
    await store.close()
