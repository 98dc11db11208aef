"""Equal resources become one object, and the pool stays bounded."""

from __future__ import annotations

from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.snapshot import Audience, Resource, Snapshot
from controlplane.workers.resource_pool import ResourcePool


def resource(name: str, body: bytes = b"", type_url: str = CLUSTER) -> Resource:
    return Resource.of(type_url, name, body)


def test_equal_resources_become_one_object() -> None:
    pool = ResourcePool()
    first = resource("a", b"1")
    assert pool.intern(first) is first
    assert pool.intern(resource("a", b"1")) is first
    # Another type, name or content is another resource; the newest content counts.
    others = resource("a", b"1", ROUTES), resource("b", b"1"), resource("a", b"2")
    assert all(pool.intern(other) is other for other in others)
    assert pool.intern(resource("a", b"2")) is others[2]
    assert len(pool) == 3


def test_a_pool_that_has_doubled_keeps_only_the_resources_of_the_snapshots() -> None:
    pool = ResourcePool()
    kept = [pool.intern(resource(f"kept-{n}")) for n in range(600)]
    snapshots = [Snapshot.of(1, Audience(), kept)]
    for n in range(400):
        pool.intern(resource(f"old-{n}"))
    pool.prune(snapshots)
    assert len(pool) == 1_000  # at the bound
    pool.intern(resource("one more"))
    pool.prune(snapshots)
    assert len(pool) == 600
    assert all(pool.intern(resource(r.name)) is r for r in kept)
    # The next prune is at twice as many.
    for n in range(600):
        pool.intern(resource(f"new-{n}"))
    pool.prune(snapshots)
    assert len(pool) == 1_200
    pool.intern(resource("one more"))
    pool.prune(snapshots)
    assert len(pool) == 600
