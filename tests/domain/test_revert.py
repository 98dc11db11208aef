"""Taking back the changes of one revision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain import Endpoint, Gateway, Model, Version
from controlplane.domain.collections import Object
from controlplane.domain.revert import revert
from controlplane.domain.revision import Action, Draft, Head, Revision
from controlplane.domain.state import Changes
from controlplane.errors import Error

VERSIONS = tuple(Version(name, (Endpoint("127.0.0.1", 80),)) for name in ("blue", "green"))
EDGE = Gateway("edge", 80)
IRIS = Model("iris", ("edge",), VERSIONS, {"blue": 10_000})
GREEN = replace(IRIS, split={"green": 10_000})
WINE = replace(IRIS, name="wine")


def commit(head: Head, *objects: Object, delete: str = "") -> tuple[Head, Revision]:
    changed: dict[str, Object | None] = {obj.resource_name: obj for obj in objects}
    if delete:
        changed[delete] = None
    draft = Draft("ann", "", Action.APPLY)
    pairs = {name: (head.state.get(name), obj) for name, obj in changed.items()}
    return head.after(Changes(changed), draft), Revision(head.number + 1, draft, pairs)


START, _ = commit(Head(), EDGE, IRIS, WINE)


def error_of(head: Head, revision: Revision) -> Error:
    with pytest.raises(Error) as caught:
        revert(head, revision)
    return caught.value


def test_only_what_the_revision_changed_is_taken_back() -> None:
    head, revision = commit(START, GREEN)
    head, _ = commit(head, replace(WINE, split={"green": 10_000}), replace(EDGE, port=81))
    head, _ = commit(head, replace(GREEN, keys=("k",)))
    assert revert(head, revision).objects == {"models/iris": replace(IRIS, keys=("k",))}


def test_what_is_taken_back_already_stays() -> None:
    head, revision = commit(START, GREEN, replace(EDGE, port=81))
    head, _ = commit(head, IRIS)
    assert revert(head, revision).objects == {"models/iris": IRIS, "gateways/edge": EDGE}
    head, _ = commit(head, EDGE)
    assert head.state.changes_to(head.state.replayed(revert(head, revision))).objects == {}


def test_created_and_deleted_objects() -> None:
    rose = replace(IRIS, name="rose")
    head, created = commit(START, rose)
    assert revert(head, created).objects == {"models/rose": None}
    head, deleted = commit(head, delete="models/rose")
    assert revert(head, deleted).objects == {"models/rose": rose}
    assert revert(head, created).objects == {"models/rose": None}


def test_a_field_that_a_later_revision_changed_is_a_conflict() -> None:
    head, revision = commit(START, GREEN, replace(EDGE, port=81))
    head, _ = commit(head, replace(IRIS, split={"blue": 5_000, "green": 5_000}), replace(EDGE, port=82))
    error = error_of(head, revision)
    assert (error.reason, [v.field for v in error.violations]) == (
        "CHANGED_SINCE",
        ["models/iris.split", "gateways/edge.port"],
    )
    assert "a later revision than 2 changed it, too; revision 3 changed it last" in error.message


def test_an_object_that_was_deleted_or_created_since_is_a_conflict() -> None:
    head, updated = commit(START, GREEN)
    head, deleted = commit(head, delete="models/iris")
    error = error_of(head, updated)
    assert (error.violations[0].field, "it does not exist any more" in error.message) == ("models/iris", True)
    head, _ = commit(head, replace(IRIS, keys=("k",)))
    assert error_of(head, deleted).violations[0].field == "models/iris"


def test_a_revert_that_would_be_invalid_is_a_conflict() -> None:
    head, revision = commit(START, GREEN)
    head, _ = commit(head, replace(GREEN, versions=VERSIONS[1:]))
    error = error_of(head, revision)
    assert error.reason == "CHANGED_SINCE"
    assert "without the changes of revision 2 it would be invalid: split.blue: there is no version 'blue'" in error.message
