"""Withdrawn keys are purged after a time that counts from when a server first sees them, and going back to them fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from controlplane.compiler import Compiler
from controlplane.domain import OpaqueValue, Secret
from controlplane.domain.revert import revert
from controlplane.domain.revision import Action, Draft
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error
from controlplane.reconciler.purge_keys import KIND, KeyPurger, purge_keys
from controlplane.store import Store
from controlplane.writer import CachingCompiler, Writer
from tests.store.opening import open_store

KEEP = 1_000.0


@dataclass
class Setting:
    store: Store
    writer: Writer
    purger: KeyPurger
    now: float = 1e9

    async def set(self, value: str) -> None:
        secret = Secret("openai", OpaqueValue(value))
        await self.write(Changes({"secrets/openai": secret}))

    async def write(self, changes: Changes) -> None:
        await self.writer.write(lambda head: changes, Draft("ann", "because", Action.APPLY))


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    store = await open_store(tmp_path)
    writer = Writer(store, CachingCompiler(Compiler()))
    made = Setting(store, writer, KeyPurger(writer, store.records, KEEP, lambda: made.now))
    yield made
    await store.close()


async def test_a_key_is_purged_when_it_was_seen_to_be_withdrawn_for_long_enough(setting: Setting) -> None:
    await setting.set("sk-one")
    await setting.set("sk-two")
    assert await setting.purger.check() == 0
    assert len(await setting.store.records.list(KIND)) == 1
    setting.now += KEEP - 1
    assert await setting.purger.check() == 0
    setting.now += 1
    with capture_logs() as lines:
        assert await setting.purger.check() == 1
    assert [(line["event"], line["secrets"]) for line in lines] == [("keys purged", ["openai"])]
    assert await setting.store.withdrawn_keys.list() == []
    assert await setting.store.records.list(KIND) == []
    revision = await setting.store.revision(2)
    with pytest.raises(Error) as caught:
        await setting.writer.write(lambda head: revert(head, revision), Draft("ann", "", Action.REVERT_REVISION))
    assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, "KEY_PURGED")
    assert "turnout secret set openai" in caught.value.message
    assert setting.store.head.value.number == 2


async def test_a_key_that_is_live_again_starts_anew(setting: Setting) -> None:
    await setting.set("sk-one")
    await setting.set("sk-two")
    await setting.purger.check()
    await setting.set("sk-one")
    setting.now += KEEP
    assert await setting.purger.check() == 0  # now sk-two is withdrawn, and was seen for the first time
    setting.now += KEEP
    assert await setting.purger.check() == 1
    assert setting.store.head.value.state.secrets["openai"].content == OpaqueValue("sk-one")


async def test_a_dry_run_and_a_filter_purge_nothing_else(setting: Setting) -> None:
    await setting.set("sk-one")
    await setting.set("sk-two")
    assert len(await purge_keys(setting.writer, lambda key: True, validate_only=True)) == 1
    assert await purge_keys(setting.writer, lambda key: key.secret == "other") == []
    assert len(await setting.store.withdrawn_keys.list()) == 1
