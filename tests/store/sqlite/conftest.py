"""Fixtures of the tests of the SQLite store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store.sqlite.common import Flaky


@pytest.fixture
def flaky() -> Iterator[type[Flaky]]:
    Flaky.mode = ""
    yield Flaky
    Flaky.mode = ""
