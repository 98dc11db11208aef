"""Every case of h2spec, against this package alone. `tests/xds_server/test_h2spec.py` runs h2spec against the xDS server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.http2 import conformance

# All of them, including the strict ones.
_CASES = 146


@pytest.fixture(scope="module")
def h2spec() -> Path:
    return conformance.build()


async def test_every_case_of_the_protocol(h2spec: Path, tmp_path: Path) -> None:
    verdict = await conformance.under_pages(h2spec, tmp_path)
    assert (len(verdict.cases), verdict.failures, verdict.skipped) == (_CASES, {}, set())
