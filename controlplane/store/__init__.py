"""The store: history, records and leases, kept durably.

`contract.py` is the contract, in three parts: `history.py`, `records.py`, `lease.py`. Each technology is a package of its
own beside it, knows none of the others, and passes the one suite in `tests/store/contract.py`. They share `codec.py`
(objects as JSON) and `sealing.py` (private keys at rest). The store knows nothing of gRPC, of Envoy, or of who may do what.
"""

from __future__ import annotations

from controlplane.store.contract import Store
from controlplane.store.history import History, Remembered, conflict
from controlplane.store.lease import Fence, Lease, Leases
from controlplane.store.records import Kind, Record, Records

__all__ = ["Fence", "History", "Kind", "Lease", "Leases", "Record", "Records", "Remembered", "Store", "conflict"]
