"""The contract of records: bounds, and error texts. `contract_records.py` covers the rest."""

from __future__ import annotations

import pytest

from controlplane.errors import Code, Error
from controlplane.store.records import MAX_NAME, Kind, check_size, record_changed, too_many_records

NODES = Kind("nodes", max_records=1_000, max_bytes=2_000)


@pytest.mark.parametrize(("name", "size"), [("a", 0), ("a" * MAX_NAME, 2_000), ("ü" * (MAX_NAME // 2), 1)])
def test_sizes_within_the_bounds_pass(name: str, size: int) -> None:
    check_size(NODES, name, b"x" * size)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("", 0, "the name of a record of nodes has 0 bytes: use 1 to 512"),
        ("ü" * MAX_NAME, 0, "the name of a record of nodes has 1024 bytes: use 1 to 512"),
        ("a", 2_001, "nodes/a has 2,001 bytes: the limit is 2,000"),
    ],
)
def test_sizes_beyond_the_bounds_are_refused(name: str, size: int, message: str) -> None:
    with pytest.raises(Error) as caught:
        check_size(NODES, name, b"x" * size)
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "RECORD_TOO_LARGE")
    assert caught.value.message == message


def test_the_error_of_too_many_records_names_the_kind_and_the_bound() -> None:
    error = too_many_records(NODES)
    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_RECORDS")
    assert error.message == "there are 1,000 nodes already: that is the limit, so delete some first"


@pytest.mark.parametrize(("live", "state"), [(0, "does not exist"), (9, "has version 9 now")])
def test_the_error_of_a_changed_record_names_both_versions(live: int, state: str) -> None:
    error = record_changed(NODES, "a", 7, live)
    assert (error.code, error.reason) == (Code.ABORTED, "RECORD_CHANGED")
    assert error.message == f"nodes/a {state} (the write is based on version 7); read it again and retry"
    assert error.metadata == {"expected": "7", "live": str(live)}
