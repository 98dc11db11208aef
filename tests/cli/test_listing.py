"""Complete lists are read page by page."""

from __future__ import annotations

import pytest

from controlplane.cli import listing, objects
from controlplane.cli.client import Client
from controlplane.cli.objects import list_all
from controlplane.domain import Gateway, Secret
from controlplane.domain.collections import BY_NOUN
from tests.cli.conftest import Run, Server

GATEWAYS = "gateways:\n" + "".join(f"  - {{name: g{i}, port: {10_000 + i}}}\n" for i in range(5))
MODELS = "models:\n" + "".join(
    f"  - {{name: m{i}, gateways: [g0], versions: [{{name: v, endpoints: [{{host: h, port: 1}}]}}]}}\n" for i in range(5)
)


@pytest.fixture
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PAGE", 2)


def test_all_pages_are_read_in_order(run: Run, server: Server, pages_of_two: None) -> None:
    assert run("apply", "-f", "-", stdin=GATEWAYS + MODELS).code == 0
    client = Client(server.api, retry_for=0, notice=print)
    assert [g.name for g in list_all(client, BY_NOUN[Gateway])] == [f"gateways/g{i}" for i in range(5)]
    assert [m.name for m in listing.models(client)] == [f"models/m{i}" for i in range(5)]
    traffic, source = listing.traffic(client)
    assert [t.model for t in traffic] == [f"models/m{i}" for i in range(5)]
    assert source.connected_nodes == 0
    assert list_all(client, BY_NOUN[Secret]) == []
    client.close()


def test_nodes_come_with_the_counts_of_the_fleet(run: Run, applied: Server, pages_of_two: None) -> None:
    for i in range(3):
        applied.connect(f"edge-{i}")
    client = Client(applied.api, retry_for=0, notice=print)
    nodes, summary = listing.nodes(client)
    assert [n.id for n in nodes] == ["edge-0", "edge-1", "edge-2"]
    assert summary.revision == 1
    assert summary.synced + summary.behind == 3
    client.close()
