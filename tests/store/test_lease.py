"""The contract of leases: the fence, and error texts. `contract_leases.py` covers the rest."""

from __future__ import annotations

from controlplane.errors import Code
from controlplane.store.lease import Fence, Lease, lease_held, lease_lost

LEASE = Lease("leader", "a", 7, 110.0)


def test_a_fence_names_the_lease_and_the_token() -> None:
    assert LEASE.fence == Fence("leader", 7)


def test_a_held_lease_names_its_holder() -> None:
    error = lease_held(LEASE, 107.5)
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "LEASE_HELD")
    assert error.message == "lease leader is held by a for another 2.5 s"
    assert error.metadata == {"holder": "a"}


def test_a_lost_lease_says_that_nothing_was_changed() -> None:
    error = lease_lost(LEASE.fence)
    assert (error.code, error.reason) == (Code.ABORTED, "LEASE_LOST")
    assert error.message.endswith("Nothing was changed")
    assert error.metadata == {"lease": "leader", "token": "7"}
