"""The bytes that a receipt names are those that a node is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.generated.turnout.v1 import model_pb2
from controlplane.generated.turnout.v1 import model_service_pb2 as mpb
from controlplane.generated.turnout.v1 import revision_service_pb2 as rpb
from tests.api.plane import serving

# The length of a nonce is not known before.
NONCES = 60
# The list of models waits for no cluster, so it may come in a response of its own.
ENVELOPE = 100


def models(count: int) -> rpb.Manifest:
    """Return models `m0`, `m1` … on the gateway of the plane."""
    versions = [
        model_pb2.Version(name=v, endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=p)]) for v, p in (("a", 1), ("b", 2))
    ]
    created = [model_pb2.Model(name=f"m{i}", gateways=["edge"], versions=versions, split={"a": 10_000}) for i in range(count)]
    return rpb.Manifest(models=created)


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_bytes_a_node(tmp_path: Path, variant: str) -> None:
    async with serving(tmp_path) as plane, plane.client("edge-1", variant) as client:
        await client.until(lambda: "iris" in client.names(ROUTES))
        before = client.bytes
        applied = await plane.revisions.Apply(rpb.ApplyRequest(manifest=models(100)))
        await client.until(lambda: "m99" in client.names(ROUTES))
        await client.until(lambda: len(client.names(CLUSTER)) == 202)
        sent, before = client.bytes - before, client.bytes
        assert applied.impact.bytes_per_node == pytest.approx(sent, abs=NONCES + ENVELOPE)
        body = sum(len(client.body(t, n)) for t in client.held for n in client.names(t) if n.startswith("m") or "/m" in n)
        assert sent > 1.5 * body

        switch = mpb.TrafficSwitch(model="models/m7", version="b")
        moved = await plane.models.SwitchTraffic(mpb.SwitchTrafficRequest(switches=[switch], force=True))
        await client.until(lambda: client.bytes > before)
        assert moved.impact.bytes_per_node == pytest.approx(client.bytes - before, abs=NONCES)
