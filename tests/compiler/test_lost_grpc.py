"""Models that lose gRPC because their endpoints lose their gRPC ports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.lost_grpc import lost_grpc
from controlplane.domain import Endpoint, Gateway, Model, Protocol, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.snapshot import Audience, DiffCache

HERE = Endpoint("10.0.0.1", 8000, grpc_port=8001)
BLUE, GREEN = Version("blue", (HERE,)), Version("green", (HERE,))
IRIS = Model("iris", ("edge",), (BLUE, GREEN), {"blue": 10_000})
PLAIN = tuple(Version(n, (Endpoint("10.0.0.1", 8000),)) for n in ("blue", "green"))


def lost(*after: Model) -> list[tuple[str, ...]]:
    states = [State({"edge": Gateway("edge", 80)}, {m.name: m for m in models}) for models in ((IRIS,), after)]
    old, new = (Compiler().compile(s, NO_LIVE_ENDPOINTS, Audience(("edge",)), 1) for s in states)
    return [loss.models for loss in lost_grpc(old, new, states[1], DiffCache())]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (replace(IRIS, versions=PLAIN), [("iris",)]),
        (replace(IRIS, versions=(BLUE,)), []),
        (replace(IRIS, versions=(BLUE, Version("green"))), []),
        (replace(IRIS, versions=(Version("blue", (Endpoint("10.0.0.1", 8001),), Protocol.GRPC),)), []),
        (replace(IRIS, name="rose", versions=PLAIN), []),  # another kind of loss
    ],
)
def test_a_model_that_stays_and_speaks_no_grpc_any_more(after: Model, expected: list[tuple[str, ...]]) -> None:
    assert lost(after) == expected
