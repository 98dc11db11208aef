"""The tests of leases and fences that every store must pass. `contract.py` describes how a technology inherits them.

The current time is an argument, so the tests choose it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controlplane.domain.state import Changes
from controlplane.errors import Code, Error
from controlplane.store import Fence, Lease, RecordWrite
from tests.store.contract_records import NODES, refused
from tests.store.places import EDGE, Open, commit, draft

LOST = (Code.ABORTED, "LEASE_LOST")
HELD = (Code.FAILED_PRECONDITION, "LEASE_HELD")
CHANGE = Changes({EDGE.resource_name: EDGE})


class LeasesContract:
    """The tests of leases."""

    async def test_a_lease_has_one_holder(self, place: Open) -> None:
        store = await place()
        assert await store.leases.current("leader", 100.0) is None
        lease = await store.leases.acquire("leader", "a", 10.0, now=100.0)
        assert (lease.name, lease.holder, lease.expires) == ("leader", "a", 110.0)
        assert await store.leases.current("leader", 109.0) == lease
        with pytest.raises(Error, match=r"lease leader is held by a for another 1\.0 s") as caught:
            await store.leases.acquire("leader", "b", 10.0, now=109.0)
        assert (caught.value.code, caught.value.reason) == HELD
        assert caught.value.metadata == {"holder": "a"}
        assert await refused(store.leases.acquire("leader", "a", 10.0, now=109.0)) == HELD
        other = await store.leases.acquire("other", "b", 10.0, now=109.0)
        assert other.holder == "b"
        await store.close()

    async def test_one_of_several_racing_acquisitions_wins(self, place: Open) -> None:
        store = await place()
        results = await asyncio.gather(
            *(store.leases.acquire("leader", f"r{i}", 10.0, now=0.0) for i in range(20)), return_exceptions=True
        )
        winners = [r for r in results if isinstance(r, Lease)]
        assert len(winners) == 1
        assert await store.leases.current("leader", 1.0) == winners[0]
        await store.close()

    async def test_a_lease_expires(self, place: Open) -> None:
        store = await place()
        old = await store.leases.acquire("leader", "a", 10.0, now=100.0)
        assert await store.leases.current("leader", 110.0) is None
        assert await refused(store.leases.renew(old, 10.0, now=110.0)) == LOST
        new = await store.leases.acquire("leader", "b", 10.0, now=110.0)
        assert new.token > old.token
        assert await refused(store.leases.renew(old, 10.0, now=111.0)) == LOST
        await store.leases.release(old)  # has no effect, because the lease has a new holder
        assert await store.leases.current("leader", 111.0) == new
        await store.close()

    async def test_renewing_a_lease_prolongs_it(self, place: Open) -> None:
        store = await place()
        lease = await store.leases.acquire("leader", "a", 10.0, now=100.0)
        renewed = await store.leases.renew(lease, 20.0, now=109.0)
        assert renewed == replace(lease, expires=129.0)
        assert await refused(store.leases.acquire("leader", "b", 10.0, now=128.0)) == HELD
        assert await store.leases.renew(lease, 20.0, now=128.0), "a renewal does not change the token"
        await store.close()

    async def test_a_released_lease_is_free(self, place: Open) -> None:
        store = await place()
        lease = await store.leases.acquire("leader", "a", 10.0, now=100.0)
        await store.leases.release(lease)
        await store.leases.release(lease)
        assert await store.leases.current("leader", 100.0) is None
        assert await refused(store.leases.renew(lease, 10.0, now=101.0)) == LOST
        again = await store.leases.acquire("leader", "a", 10.0, now=101.0)
        assert again.token > lease.token
        await store.close()

    async def test_leases_and_tokens_survive_reopening(self, place: Open) -> None:
        store = await place()
        lease = await store.leases.acquire("leader", "a", 10.0, now=100.0)
        gone = await store.leases.acquire("gone", "a", 10.0, now=100.0)
        await store.leases.release(gone)
        await store.close()
        store = await place()
        assert await store.leases.current("leader", 105.0) == lease
        assert await refused(store.leases.acquire("leader", "b", 10.0, now=105.0)) == HELD
        again = await store.leases.acquire("gone", "b", 10.0, now=105.0)
        assert again.token > max(lease.token, gone.token), "no token is used twice"
        await store.close()

    @pytest.mark.parametrize("how", ["released", "acquired again", "never acquired"])
    async def test_a_write_with_a_stale_token_is_refused(self, place: Open, how: str) -> None:
        store = await place()
        record = await store.records.put(NODES, "a", b"1", 0)
        lease = await store.leases.acquire("leader", "a", 10.0, now=100.0)
        if how == "released":
            await store.leases.release(lease)
        elif how == "acquired again":
            await store.leases.acquire("leader", "b", 10.0, now=110.0)
        else:
            lease = replace(lease, name="other")
        fence = lease.fence
        head = store.head.value
        assert await refused(commit(store, 0, CHANGE, draft(request_id="r", digest="d"), fence)) == LOST
        assert await refused(store.remember("r", "d", 0, fence=fence)) == LOST
        assert await refused(store.records.put(NODES, "a", b"2", record.version, fence=fence)) == LOST
        assert await refused(store.records.put(NODES, "b", b"2", 0, fence=fence)) == LOST
        assert await refused(store.records.delete(NODES, "a", record.version, fence=fence)) == LOST
        assert await refused(store.records.write(NODES, [RecordWrite("b", b"2", 0)], fence=fence)) == LOST
        assert store.head.value is head
        assert await store.recall("r") is None
        assert await store.records.list(NODES) == [record]
        await store.close()

    async def test_the_holder_of_a_lease_can_write(self, place: Open) -> None:
        store = await place()
        lease = await store.leases.acquire("leader", "a", 10.0, now=100.0)
        lease = await store.leases.renew(lease, 10.0, now=105.0)
        assert lease.fence == Fence("leader", lease.token)
        assert (await commit(store, 0, CHANGE, draft(), lease.fence)).number == 1
        await store.remember("r", "d", 1, fence=lease.fence)
        record = await store.records.put(NODES, "a", b"1", 0, fence=lease.fence)
        await store.records.write(NODES, [RecordWrite("a", None, record.version)], fence=lease.fence)
        record = await store.records.put(NODES, "a", b"1", 0, fence=lease.fence)
        await store.records.delete(NODES, "a", record.version, fence=lease.fence)
        await store.close()
