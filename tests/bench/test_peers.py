"""go-control-plane can serve the same resources as Turnout, so the benchmark compares the servers and not the resources."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2, scoped_route_pb2
from google.protobuf import json_format

from bench.rig import USER_HEADER
from bench.sides import ORDINARY, STRONGEST, peer
from controlplane.compiler import Compiler
from controlplane.domain import Endpoint, Gateway, Model, Sticky, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Audience, Snapshot
from tests.fakes.xds_client import client

TEMPLATES = Path(__file__).parents[2] / "bench" / "peers" / "turnout.json"
PORTS = {"blue": 9001, "green": 9101}
MODELS = 3
KINDS = {
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    LISTENER: listener_pb2.Listener,
    SCOPED_ROUTES: scoped_route_pb2.ScopedRouteConfiguration,
    ROUTES: route_pb2.RouteConfiguration,
}


def compiled(models: int) -> Snapshot:
    """Return the benchmark's models as Turnout compiles them, with the peers' names and port."""
    gateway = Gateway(name="edge", address="127.0.0.1", port=10_000)
    versions = tuple(
        Version(name=v, endpoints=tuple(Endpoint(host="127.0.0.1", port=port + i) for i in range(2)))
        for v, port in PORTS.items()
    )
    sticky = Sticky(header=USER_HEADER)
    names = [f"model-{i:04}" for i in range(models)]
    by_name = {n: Model(name=n, gateways=("edge",), versions=versions, split={"blue": 10_000}, sticky=sticky) for n in names}
    state = State({"edge": gateway}, by_name)
    return Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)


def shown(type_url: str, body: bytes) -> dict[str, object]:
    """Return a resource in JSON form, so that the order of its bytes does not matter."""
    return json_format.MessageToDict(KINDS[type_url].FromString(body), preserving_proto_field_name=True)


def test_the_templates_are_equal_to_compiled_resources() -> None:
    resources = compiled(1).resources
    all_of = {t: [shown(t, r.body) for r in resources[t].values()] for t in KINDS}
    own = "gateways/edge"  # the gateway's own answers
    templates = {
        "clusters": all_of[CLUSTER],
        "endpoints": all_of[ENDPOINTS],
        "listener": all_of[LISTENER][0],
        "scopes": [s for s in all_of[SCOPED_ROUTES] if s["route_configuration_name"] != own],
        "routes": next(r for r in all_of[ROUTES] if r["name"] != own),
        "own_scopes": [s for s in all_of[SCOPED_ROUTES] if s["route_configuration_name"] == own],
        "own_routes": next(r for r in all_of[ROUTES] if r["name"] == own),
    }
    if os.environ.get("REGENERATE"):
        TEMPLATES.write_text(json.dumps(templates, indent=1) + "\n")
    assert json.loads(TEMPLATES.read_text()) == templates


@pytest.mark.parametrize("setup", [s.rpartition(" ")[2] for s in (ORDINARY, STRONGEST)])
async def test_peers_serve_the_same_resources(go: Path, setup: str, tmp_path: Path) -> None:
    resources = compiled(MODELS).resources
    wanted = {t: {n: shown(t, r.body) for n, r in resources[t].items()} for t in KINDS}
    async with (
        peer(setup, "--resources", "same", "--tables", "each")(MODELS, tmp_path) as side,
        client(side.port, "n") as c,
        asyncio.timeout(20),
    ):
        while any(set(c.held.get(t, {})) != set(names) for t, names in wanted.items()):  # noqa: ASYNC110  no event
            await asyncio.sleep(0.01)
    assert {t: {n: shown(t, body) for n, (_, body) in c.held[t].items()} for t in KINDS} == wanted
