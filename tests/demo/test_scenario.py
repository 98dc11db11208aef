"""The demo's desired state and load."""

from __future__ import annotations

import pytest

from controlplane.api.convert.gateway import gateway_from_proto
from controlplane.api.convert.model import model_from_proto
from controlplane.demo import scenario
from controlplane.demo.receipt import STREAMS

PORTS = {"edge-1": 20_001, "edge-2": 20_002}


def test_each_node_has_a_gateway_and_the_model_starts_on_its_first_version() -> None:
    manifest = scenario.manifest(PORTS, {"blue": 8001, "green": 8002})
    assert [(g.name, g.port, list(g.nodes.ids)) for g in manifest.gateways] == [
        ("edge-1", 20_001, ["edge-1"]),
        ("edge-2", 20_002, ["edge-2"]),
    ]
    assert [gateway_from_proto(g).name for g in manifest.gateways] == list(PORTS)
    model = model_from_proto(manifest.models[0])
    assert (model.split, model.gateways) == ({"blue": 10_000}, tuple(PORTS))
    # The README and the examples use the same header.
    assert model.preview_header == "x-model-version"


def test_the_load_is_shared_between_the_envoys() -> None:
    groups = scenario.load_groups(PORTS, {"inputs": []}, stream_seconds=3.0)
    assert [(g.port, g.name) for g in groups] == [
        (port, name) for port in PORTS.values() for name in ("http1", "http2", STREAMS)
    ]
    assert sum(g.rate for g in groups if g.name != STREAMS) == pytest.approx(600)
    streams = next(g for g in groups if g.name == STREAMS)
    assert streams.path.endswith("/stream?seconds=3")
    assert streams.rate * 3.0 < streams.connections * streams.slots
