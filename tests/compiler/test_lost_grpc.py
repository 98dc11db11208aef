"""Models that lose gRPC because their endpoints lose their gRPC ports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.lost_grpc import gets_grpc, lost_grpc
from controlplane.domain import BodyRouting, Endpoint, Gateway, Model, PathRouting, Protocol, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.snapshot import Audience, Client, DiffCache

HERE = Endpoint("10.0.0.1", 8000, grpc_port=8001)
BLUE, GREEN = Version("blue", (HERE,)), Version("green", (HERE,))
IRIS = Model("iris", ("edge",), (BLUE, GREEN), {"blue": 10_000})
PLAIN = tuple(Version(n, (Endpoint("10.0.0.1", 8000),)) for n in ("blue", "green"))


EDGE = Gateway("edge", 80, routing=BodyRouting())


def lost(*after: Model, gateway: Gateway = EDGE) -> list[tuple[str, ...]]:
    before, state = (State({"edge": gateway}, {m.name: m for m in models}) for models in ((IRIS,), after))
    old, new = (Compiler().compile(s, NO_LIVE_ENDPOINTS, Audience(("edge",)), 1) for s in (before, state))
    return [loss.models for loss in lost_grpc(old, new, before, state, DiffCache())]


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


def test_nothing_is_lost_where_no_grpc_call_could_reach_the_model() -> None:
    after = replace(IRIS, versions=PLAIN)
    assert lost(after, gateway=Gateway("edge", 80)) == []
    assert lost(after, gateway=Gateway("edge", 80, routing=PathRouting(2))) == [("iris",)]
    # The model is at the path gateway only.
    gateways = {"edge": Gateway("edge", 80), "inner": replace(EDGE, name="inner", port=81)}
    here = Audience(("edge", "inner"))
    state = State(gateways, {"iris": IRIS})
    assert not gets_grpc("iris", state, here)
    assert gets_grpc("iris", State(gateways, {"iris": replace(IRIS, gateways=("edge", "inner"))}), here)
    assert gets_grpc("iris", state, Audience(("edge",), Client.GRPC))
