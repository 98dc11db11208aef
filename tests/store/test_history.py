"""The contract of the history: the error of a commit that comes too late. `contract.py` covers the rest."""

from __future__ import annotations

from controlplane.errors import Code
from controlplane.store.history import conflict


def test_a_conflict_names_both_revisions() -> None:
    error = conflict(3, 5)
    assert (error.code, error.reason) == (Code.ABORTED, "CONFLICT")
    assert error.message == "revision 5 was committed in the meantime (the change is based on 3); try again"
    assert error.metadata == {"expected": "3", "live": "5"}
