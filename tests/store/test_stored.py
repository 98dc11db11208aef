"""A data directory that commit bddd395 wrote: today's code reads the same history from it, and can write to it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain import Object, TlsCertificate
from controlplane.domain.state import Changes
from controlplane.store import Store
from controlplane.store.codec import encode
from controlplane.store.sealing import Keys
from tests.store.opening import open_store
from tests.store.places import commit, draft

STORED = Path(__file__).parent / "testdata" / "bddd395"
EXPECTED: list[dict[str, Any]] = json.loads((STORED / "expected.json").read_text())
NEWEST = len(EXPECTED)


class Fingerprint(Keys):
    """Replaces a private key by its hash instead of sealing it."""

    def __init__(self) -> None:
        super().__init__([b"k" * 32])

    def seal(self, text: str, name: str) -> str:
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def text(obj: Object | None) -> str | None:
    """Return the JSON of an object, with a hash instead of a private key."""
    return encode(obj, Fingerprint()) if obj is not None else None


def digest(obj: Object) -> str:
    return hashlib.sha256((text(obj) or "").encode()).hexdigest()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the data directory."""
    copy = tmp_path / "data"
    shutil.copytree(STORED, copy)
    (copy / "secret.key").chmod(0o600)
    return copy


@pytest.fixture
async def stored(directory: Path) -> AsyncIterator[Store]:
    store = await open_store(directory)
    yield store
    await store.close()


async def test_the_head_is_the_newest_revision(stored: Store) -> None:
    head = stored.head.value
    assert head.number == NEWEST == 14
    assert sorted(head.state.gateways) == ["by-header", "edge", "hosts", "path"]
    assert head.state.models["iris"].split == {"blue": 10_000}
    assert head.state.models["wine"].preview_header == "x-version"
    assert head.state.models["wine"].sticky is not None
    assert sorted(head.state.secrets) == ["authorities", "caller", "front"]


@pytest.mark.parametrize("number", range(1, NEWEST + 1))
async def test_each_revision_reads_and_encodes_as_it_was_written(stored: Store, number: int) -> None:
    expected = EXPECTED[number - 1]
    revision = await stored.revision(number)
    # The address of the caller, and what it says of itself, are not stored.
    assert asdict(revision.draft) | {"action": revision.draft.action.value} == expected["draft"] | {"caller": "", "note": ""}
    assert {name: text(new) for name, (_, new) in revision.changes.items()} == expected["changes"]
    before = (await stored.at(number - 1)).state
    assert all(before.get(name) == old for name, (old, _) in revision.changes.items())


@pytest.mark.parametrize("number", range(1, NEWEST + 1))
async def test_each_state_reads_as_it_was_written(stored: Store, number: int) -> None:
    expected = EXPECTED[number - 1]
    head = await stored.at(number)
    assert {o.resource_name: digest(o) for o in head.state.objects()} == expected["objects"]
    assert {n: [m.revision, m.create_time, m.update_time] for n, m in head.meta.items()} == expected["meta"]
    assert head.time == expected["draft"]["time"]


async def test_sealed_private_keys_can_be_opened(stored: Store) -> None:
    renewed = (await stored.at(8)).state.secrets["front"].content
    first = stored.head.value.state.secrets["front"].content
    assert isinstance(renewed, TlsCertificate)
    assert isinstance(first, TlsCertificate)
    assert (renewed.leaf.subject, first.leaf.subject) == ("CN=new.example", "CN=old.example")


async def test_request_ids_are_remembered(stored: Store) -> None:
    ids = [r["draft"]["request_id"] for r in EXPECTED]
    assert all(ids)
    for number, request_id in enumerate(ids, 1):
        remembered = await stored.recall(request_id)
        assert remembered is not None
        assert (remembered.revision, remembered.digest) == (number, EXPECTED[number - 1]["draft"]["request_digest"])
    unchanged = await stored.recall("3b9f0a52-6d0f-4c58-9d5c-4dd0f2f7a002")
    assert unchanged is not None
    assert unchanged.revision == NEWEST


async def test_a_further_commit_can_be_read_after_reopening(directory: Path) -> None:
    stored = await open_store(directory)
    iris = replace(stored.head.value.state.models["iris"], split={"green": 10_000})
    head = await commit(stored, NEWEST, Changes({"models/iris": iris}), draft())
    assert head.number == NEWEST + 1
    await stored.close()
    again = await open_store(directory)
    assert again.head.value == head
    assert (await again.revision(NEWEST + 1)).changes["models/iris"][1] == iris
    await again.close()


def test_stored_files_are_small() -> None:
    assert sum(p.stat().st_size for p in STORED.iterdir()) < 200_000
