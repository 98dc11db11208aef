"""The SQL of leases and fences. `tests/store/contract_leases.py` covers the rest."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from controlplane.errors import Error
from controlplane.store import Fence
from controlplane.store.sqlite.file import SqliteFile
from controlplane.store.sqlite.leases import check_fence, next_number


def test_numbers_grow_and_a_rolled_back_number_is_used_again(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path)
    with file.transaction() as db:
        assert [next_number(db), next_number(db)] == [1, 2]
    with suppress(KeyError), file.transaction() as db:
        assert next_number(db) == 3
        raise KeyError
    with file.transaction() as db:
        assert next_number(db) == 3
    file.close()


def test_a_fence_compares_the_token(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path)
    with file.transaction() as db:
        db.execute("INSERT INTO leases VALUES ('leader', 'a', 7, 0.0)")
        check_fence(db, None)
        check_fence(db, Fence("leader", 7))  # expired, and nobody else has acquired it
        for fence in (Fence("leader", 6), Fence("leader", 8), Fence("other", 7)):
            with pytest.raises(Error, match=f"lease {fence.lease} was lost"):
                check_fence(db, fence)
    file.close()
