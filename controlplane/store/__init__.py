"""The store: durable history, records and leases.

`contract.py` is the contract. It has three parts: `history.py`, `records.py`, `lease.py`. Each technology that implements the
contract is a package in this folder, imports no other technology, and passes the tests in `tests/store/contract.py`. All
technologies share `codec.py` (objects as JSON) and `sealing.py` (private keys at rest). The store does not depend on gRPC or
on Envoy, and does not decide what a caller may do.
"""

from __future__ import annotations

from controlplane.store.contract import Store
from controlplane.store.history import History, RememberedRequest, conflict
from controlplane.store.lease import Fence, Lease, Leases
from controlplane.store.records import Kind, Record, Records, RecordWrite
from controlplane.store.withdrawn import WithdrawnKey, WithdrawnKeys

__all__ = [
    "Fence",
    "History",
    "Kind",
    "Lease",
    "Leases",
    "Record",
    "RecordWrite",
    "Records",
    "RememberedRequest",
    "Store",
    "WithdrawnKey",
    "WithdrawnKeys",
    "conflict",
]
