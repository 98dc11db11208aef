"""The SQL of the history: triggers that protect the history, and content that this version refuses."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from controlplane.errors import Code, Error
from controlplane.store.sqlite import DATABASE
from tests.store.opening import open_store
from tests.store.places import IRIS, changes, commit, draft, filled
from tests.store.sqlite.common import Flaky, change, create, open_flaky, rewrite, store_error


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE revisions SET author = 'eve'",
        "DELETE FROM revisions WHERE number = 5",
        "UPDATE objects SET content = NULL",
        "DELETE FROM objects",
        "UPDATE requests SET revision = 1",
        "DELETE FROM requests",
        "INSERT INTO revisions VALUES (7, 0, '', '', 'apply', 0, '', '')",
    ],
)
def test_triggers_protect_the_history(tmp_path: Path, statement: str) -> None:
    async def fill() -> None:
        store = await open_store(tmp_path)
        await filled(store)
        await store.remember("id", "digest", 5)
        await store.close()

    asyncio.run(fill())
    db = sqlite3.connect(tmp_path / DATABASE)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"keys":', '"colour":"red","keys":', "STORE_NEWER"),
        ('"protocol":"http1"', '"protocol":"http9"', "STORE_NEWER"),
        ('"routing":{"path":', '"routing":{"smell":', "STORE_NEWER"),
        ('"segment":3', '"segment":3,"extra":1', "STORE_NEWER"),
        ('"green":10000', '"green":9999', "STORE_CORRUPT"),
        ('"port":8080', '"port":"many"', "STORE_CORRUPT"),
        ('"port":8080', '"port":0', "STORE_CORRUPT"),
        ('{"name":"iris"', '{"name":"iris', "STORE_CORRUPT"),
        ('{"name":"edge"', '{"name":"edge', "STORE_CORRUPT"),
    ],
)
def test_newer_and_damaged_content_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    create(tmp_path)
    rewrite(tmp_path, old, new)
    error = store_error(tmp_path)
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, reason)
    assert "models/iris" in error.message or "gateways/edge" in error.message


def test_a_field_that_an_older_version_did_not_write_gets_its_default(tmp_path: Path) -> None:
    create(tmp_path)
    rewrite(tmp_path, ',"preview_header":""', "")

    async def run() -> None:
        store = await open_store(tmp_path)
        assert store.head.value.state.models["iris"].preview_header == ""
        await store.close()

    asyncio.run(run())


def test_a_file_with_a_missing_revision_is_refused(tmp_path: Path) -> None:
    create(tmp_path)
    change(tmp_path, "DELETE FROM revisions WHERE number = 2")
    error = store_error(tmp_path)
    assert error.reason == "STORE_CORRUPT"
    assert "4 revisions" in error.message


async def test_a_request_id_can_be_used_after_remembering_it_failed(tmp_path: Path, flaky: type[Flaky]) -> None:
    store = await open_flaky(tmp_path)
    await filled(store)
    flaky.mode = "before"
    with pytest.raises(Error):
        await store.remember("x", "d", 5)
    flaky.mode = ""
    assert (await commit(store, 5, changes(IRIS), draft(request_id="x", digest="d"))).number == 6
    await store.close()
