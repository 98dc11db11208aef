"""The example of a plug-in: what its functions change, and that its results are the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.api.convert import CONVERTERS
from controlplane.cli.files import load
from controlplane.compiler import Compiler
from controlplane.compiler.decode import decoded, unpack
from controlplane.domain import Gateway, Model
from controlplane.domain.collections import COLLECTIONS
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.patch_functions import with_hashes
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import CLUSTER, LISTENER, ORDER, ROUTES
from controlplane.patch_functions import PluginFunctions, PluginStore, installed
from controlplane.snapshot import Audience, Snapshot
from tests.compiler.cases import check
from tests.compiler.values import everything, shared_types

EXAMPLE = Path(__file__).parents[2] / "examples" / "patch-functions"


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginFunctions]:
    plugin = installed(str(EXAMPLE / "team_patches.py"))
    functions = PluginFunctions(PluginStore(tmp_path_factory.mktemp("copies")), plugin)
    yield functions
    functions.close()


def state_of(functions: PluginFunctions) -> State:
    manifest = load([str(EXAMPLE / "models.yaml")]).manifest
    objects = [CONVERTERS[row.noun].from_proto(m, None) for row in COLLECTIONS for m in getattr(manifest, row.name)]
    named = {o.resource_name: replace(o, split={"blue": 10_000}) if isinstance(o, Model) else o for o in objects}
    return State().applied(Changes(with_hashes(named, functions.installed)))


def compiled(state: State, compiler: Compiler, previous: Snapshot | None = None) -> Snapshot:
    return compiler.compile(state, NO_LIVE_ENDPOINTS, Audience(("edge",)), 1, previous)


def test_each_function_changes_the_resource_of_its_object(functions: PluginFunctions) -> None:
    state, compiler = state_of(functions), Compiler(functions)
    snapshot = compiled(state, compiler)
    check(everything(snapshot), snapshot)
    (listener,) = map(decoded, snapshot.resources[LISTENER].values())
    manager = unpack(listener.filter_chains[0].filters[0].typed_config)
    assert [f.name for f in manager.http_filters][-2:] == ["team.buffer", "envoy.filters.http.router"]
    assert unpack(manager.http_filters[-2].typed_config).max_request_bytes.value == 1 << 20
    (host,) = decoded(snapshot.resources[ROUTES]["iris"]).virtual_hosts
    assert [(h.header.key, h.header.value) for h in host.response_headers_to_add] == [("x-team", "vision")]
    ratios = {
        n: decoded(c).preconnect_policy.per_upstream_preconnect_ratio.value for n, c in snapshot.resources[CLUSTER].items()
    }
    assert (ratios["iris/blue"], ratios["iris/green"]) == (0.0, 1.5)
    switched = State(state.gateways, {"iris": replace(state.models["iris"], split={"green": 10_000})})
    after = compiled(switched, compiler, snapshot)
    assert shared_types(snapshot, after) == set(ORDER) - {ROUTES}
    assert len(after.resources[ROUTES]["iris"].body) <= 1_024


def test_the_same_results_come_from_every_copy(functions: PluginFunctions, tmp_path: Path) -> None:
    other = PluginFunctions(PluginStore(tmp_path), installed(str(EXAMPLE / "team_patches.py")))
    assert other.installed == functions.installed
    assert everything(compiled(state_of(other), Compiler(other))) == everything(
        compiled(state_of(functions), Compiler(functions))
    )
    other.close()


def test_the_example_names_a_function_for_each_kind_of_object(functions: PluginFunctions) -> None:
    state = state_of(functions)
    gateway: Gateway = state.gateways["edge"]
    model: Model = state.models["iris"]
    patches = [*gateway.patches, *model.patches, *(p for v in model.versions for p in v.patches)]
    assert [p.function for p in patches] == ["bounded_bodies", "who_owns_it", "warm"]
    assert {p.hash for p in patches} == {functions.installed}
