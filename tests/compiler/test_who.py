"""The metadata that says who answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.decode import decoded
from controlplane.compiler.who import shows_revision
from controlplane.domain import AccessLog, Gateway
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.revision import ObjectMeta
from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.snapshot import Snapshot
from tests.compiler.values import EDGE, a_model, a_state, everything, with_model

PLAIN = Gateway("edge", 8080)
META = {f"models/model-{i}": ObjectMeta(i + 1, 0.0, 0.0) for i in range(3)}


def revisions(snapshot: Snapshot) -> dict[str, float]:
    """Return the revision in each model's RouteConfiguration."""
    hosts = {name: decoded(r).virtual_hosts[0] for name, r in snapshot.resources[ROUTES].items() if "/" not in name}
    return {name: h.metadata.filter_metadata["turnout"]["revision"] for name, h in hosts.items() if h.HasField("metadata")}


@pytest.mark.parametrize("gateway", [replace(PLAIN, answered_by_header="x-who"), replace(PLAIN, access_log=AccessLog())])
def test_a_switch_changes_the_revision_of_one_model_and_is_small(gateway: Gateway) -> None:
    assert shows_revision(gateway)
    compiler, state = Compiler(), a_state(3, gateway)
    before = compiler.compile(state, NO_LIVE_ENDPOINTS, EDGE, 3, None, META)
    assert revisions(before) == {"model-0": 1, "model-1": 2, "model-2": 3}
    switched = with_model(state, a_model("model-1", green=10_000))
    after = compiler.compile(switched, NO_LIVE_ENDPOINTS, EDGE, 4, before, META | {"models/model-1": ObjectMeta(4, 0.0, 0.0)})
    assert revisions(after) == {"model-0": 1, "model-1": 4, "model-2": 3}
    changed = [r for r in everything(after) if before.resources[r.type_url].get(r.name) is not r]
    assert [r.name for r in changed] == ["model-1"]
    assert len(changed[0].body) < 500
    # A process that starts anew compiles the same bytes.
    again = Compiler().compile(switched, NO_LIVE_ENDPOINTS, EDGE, 4, None, META | {"models/model-1": ObjectMeta(4, 0.0, 0.0)})
    assert again.versions == after.versions


def test_without_a_gateway_that_shows_it_no_route_has_a_revision() -> None:
    assert not shows_revision(PLAIN)
    snapshot = Compiler().compile(a_state(3, PLAIN), NO_LIVE_ENDPOINTS, EDGE, 3, None, META)
    assert revisions(snapshot) == {}


def test_a_cluster_names_its_model_and_version() -> None:
    snapshot = Compiler().compile(a_state(1, PLAIN), NO_LIVE_ENDPOINTS, EDGE, 1)
    fields = decoded(snapshot.resources[CLUSTER]["model-0/blue"]).metadata.filter_metadata["turnout"]
    assert dict(fields) == {"model": "model-0", "version": "blue"}
