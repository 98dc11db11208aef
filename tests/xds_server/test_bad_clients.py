"""Clients that misbehave: their streams end with a status, memory stays bounded, and other clients are not delayed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from bench.bad_clients import Bad, manifest, switch
from controlplane.demo.plane import ControlPlane
from tests.fakes.xds_client import XdsClient, client

MODELS = 500

# The memory that a server may use for the bad clients of all kinds, one after the other. Bytes.
GROWTH = 150_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[tuple[ControlPlane, XdsClient]]:
    """`turnout serve`, and a client that follows the protocol."""
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane())
        await plane.apply(manifest(MODELS))
        healthy = await stack.enter_async_context(client(plane.xds_port, "healthy"))
        await plane.held(1, 1)
        yield plane, healthy


# By kind of client: the status of its stream; "" when the stream need not end.
KINDS = {
    "deaf": "",
    "trickle": "",
    "flood": "OK",
    "names": "",
    "many-names": "RESOURCE_EXHAUSTED 205000 names on one stream",
    "many-streams": "RESOURCE_EXHAUSTED node bad has 256 streams open already",
    "garbage": "INVALID_ARGUMENT the message is not a discovery request",
    "wrong-type": "INVALID_ARGUMENT type_url: this stream serves type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "huge-node": "RESOURCE_EXHAUSTED the request's node and other fields take more than 262144 bytes",
    "huge-request": "RESOURCE_EXHAUSTED",
    "nobody": "INVALID_ARGUMENT node.id: is required",
    "half-close": "OK",
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_bad_client_does_not_delay_others(served: tuple[ControlPlane, XdsClient], kind: str) -> None:
    plane, healthy = served
    before = plane.process.rss_bytes()
    async with Bad(kind, plane.xds_port, plane.directory) as bad:
        for version in ("green", "blue", "green", "blue"):
            assert await switch(plane, healthy, version) < 5
        if KINDS[kind]:
            await bad.printed(KINDS[kind], seconds=90)
        assert plane.process.rss_bytes() - before < GROWTH
    assert healthy.ended is None
    assert plane.process.running
