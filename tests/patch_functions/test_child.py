"""The child: messages go through Envoy's typed classes without a loss, and functions are found by their annotations."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3  # noqa: F401 - to unpack listeners
import pytest
from envoy_data_plane.google.protobuf import Any as Packed
from google.protobuf import descriptor_pool

from controlplane.compiler import Compiler, audiences
from controlplane.compiler.decode import decoded
from controlplane.compiler.merge_patch import repack
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.envoy_types import CLUSTER, LISTENER, ROUTES
from controlplane.patch_functions import child
from tests.compiler.cases import read_state

CASES = sorted(
    p.name.removesuffix(".in.yaml") for p in (Path(__file__).parents[1] / "compiler" / "testdata").glob("*.in.yaml")
)


# The library uses a feature of pydantic that later versions will not have, and warns at each class.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def same_after_typed_classes(cases: list[str]) -> int:
    """Check that typed classes lose nothing of the compiled resources. Return how many were checked."""
    seen = set()
    for case in cases:
        state = read_state(case)
        for audience in audiences(state):
            snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, audience, 1)
            for resource in [r for t in (LISTENER, ROUTES, CLUSTER) for r in snapshot.resources[t].values()]:
                if resource.body in seen:
                    continue
                seen.add(resource.body)
                message = decoded(resource)
                typed = child._kind(message.DESCRIPTOR.full_name).parse(resource.body)
                for network_filter in [f for c in getattr(typed, "filter_chains", ()) for f in c.filters]:
                    network_filter.typed_config = Packed.pack(network_filter.typed_config.unpack())
                after = type(message).FromString(bytes(typed))
                repack(after)
                assert after == message, resource.name
    return len(seen)


def test_compiled_resources_are_the_same_after_the_typed_classes() -> None:

    assert same_after_typed_classes(["everything-on-a-route", "tls"]) > 10


@pytest.mark.slow
def test_all_compiled_resources_are_the_same_after_the_typed_classes() -> None:
    assert same_after_typed_classes(CASES) > 100


def test_the_messages_are_envoys() -> None:
    for name in child._MODULES:
        assert descriptor_pool.Default().FindMessageTypeByName(name).name == child._kind(name).__name__


def module_of(name: str, code: str) -> ModuleType:
    module = ModuleType(name)
    sys.modules[name] = module
    exec(code, vars(module))
    return module


CODE = """
from __future__ import annotations
from typing import get_type_hints
from envoy_data_plane.envoy.config.cluster.v3 import Cluster

def one(cluster: Cluster, settings): return cluster
def _hidden(cluster: Cluster, settings): return cluster
def unknown_annotation(cluster: Nothing, settings): return cluster
def without(cluster, settings): return cluster
class Other: pass
"""


def test_functions_are_found_by_the_type_of_their_first_parameter() -> None:
    module = module_of("found_in_a_test", CODE)
    functions = child.functions_of([module])
    assert {name: kind.__name__ for name, (kind, _) in functions.items()} == {"one": "Cluster"}
    del sys.modules["found_in_a_test"]


def test_two_functions_of_one_name_are_refused() -> None:
    modules = [module_of(name, CODE) for name in ("first_in_a_test", "second_in_a_test")]
    with pytest.raises(child.CallFailed, match="has two functions 'one'"):
        child.functions_of(modules)
    for module in modules:
        del sys.modules[module.__name__]
