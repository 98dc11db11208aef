"""The clusters that a change removes are those that an audience loses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.decode import decoded
from controlplane.compiler.functions import Functions
from controlplane.compiler.removed import removed_clusters
from controlplane.domain import Affinity, Endpoint, Gateway, Mirror, Model, Object, Timeouts, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import CLUSTER
from controlplane.snapshot import Audience, Resources
from tests.compiler.test_functions import InProcess, call, fail

BLUE, GREEN = (Version(name, (Endpoint("127.0.0.1", port),)) for name, port in (("blue", 9001), ("green", 9002)))
IRIS = Model("iris", versions=(BLUE, GREEN), gateways=("edge",), split={"blue": 10_000})
MIRRORED = replace(IRIS, mirror=Mirror("green", 10_000))
FALLING_BACK = replace(IRIS, versions=(BLUE, replace(GREEN, endpoints=(Endpoint("green.svc", 80),), fallback=("blue",))))
INNER = Gateway("inner", port=10_001)


def state(*models: Model) -> State:
    objects: list[Object] = [Gateway("edge", port=10_000), INNER, *models]
    return State().applied(Changes({o.resource_name: o for o in objects}))


def clusters(of: State) -> Resources:
    return Compiler().compile(of, NO_LIVE_ENDPOINTS, Audience(("edge",)), 1).resources[CLUSTER]


@pytest.mark.parametrize(
    ("before", "after", "removed"),
    [
        ([IRIS], [replace(IRIS, versions=(BLUE,))], ["iris/green"]),
        ([IRIS], [replace(IRIS, versions=(BLUE, replace(GREEN, connect_timeout=3.0)))], ["iris/green"]),
        ([IRIS, replace(IRIS, name="digits")], [IRIS], ["digits/blue", "digits/green"]),
        ([IRIS], [replace(IRIS, gateways=("inner",))], ["iris/blue", "iris/green"]),
        ([IRIS], [replace(IRIS, gateways=("edge", "inner"), split={"green": 10_000})], []),
        ([IRIS], [IRIS, replace(IRIS, name="digits")], []),
        ([IRIS], [replace(IRIS, versions=(BLUE, replace(GREEN, endpoints=BLUE.endpoints)))], []),
        ([IRIS], [replace(IRIS, versions=(BLUE, replace(GREEN, endpoints=())))], ["iris/green"]),
        ([MIRRORED], [IRIS], ["iris/green/mirror"]),
        ([MIRRORED], [replace(MIRRORED, mirror=Mirror("green", timeout=7.0))], ["iris/green/mirror"]),
        (
            [MIRRORED],
            [replace(MIRRORED, timeouts=Timeouts(request=7.0))],
            ["iris/blue", "iris/green", "iris/green/mirror"],
        ),
        ([FALLING_BACK], [IRIS], ["iris/green", "iris/green/fallback", "iris/green/fallback/blue"]),
        ([FALLING_BACK], [replace(FALLING_BACK, split={"green": 10_000})], []),
        ([IRIS], [replace(IRIS, affinity=Affinity("x-chat"))], ["iris/blue", "iris/green"]),
        ([MIRRORED], [], ["iris/blue", "iris/green", "iris/green/mirror"]),
    ],
)
def test_removed_clusters_are_those_that_an_audience_loses(
    before: list[Model], after: list[Model], removed: list[str]
) -> None:
    old, new = clusters(state(*before)), clusters(state(*after))
    found = {c.name: c for removed in removed_clusters(state(*before), state(*after)) for c in removed}
    assert sorted(found) == removed
    lost = {n: c for n, c in old.items() if n not in new or new[n].version != c.version}
    assert found == lost


def test_clusters_of_functions_are_found_and_a_function_that_fails_hides_only_its_model() -> None:
    patched = replace(IRIS, versions=(BLUE, replace(GREEN, patches=(call(),))))
    plain = replace(IRIS, name="digits")
    before, after = state(patched, plain), state(replace(plain, versions=(BLUE,)))

    def change(cluster: Any) -> None:
        cluster.alt_stat_name = "x"

    def names(functions: Functions) -> list[str]:
        found = [c for removed in removed_clusters(before, after, functions) for c in removed]
        assert all(decoded(c).alt_stat_name == "x" for c in found if c.name == "iris/green")
        return sorted(c.name for c in found)

    assert names(InProcess(change)) == ["digits/green", "iris/blue", "iris/green"]
    assert names(InProcess(fail)) == ["digits/green"]
