"""Scopes: one for each key of a model on a gateway."""

from __future__ import annotations

import pytest
from hypothesis import given

from controlplane.compiler.decode import decoded
from controlplane.compiler.scopes import compile_scopes
from controlplane.domain import Gateway, HeaderRouting, HostRouting, Model, PathRouting, Routing
from controlplane.domain.routing import scope_keys
from controlplane.envoy_types import ROUTES, SCOPED_ROUTES
from tests.compiler.cases import check
from tests.compiler.strategies import gateways, models
from tests.compiler.values import a_model
from tests.nouns import some


@pytest.mark.parametrize(
    ("routing", "keys"),
    [
        (PathRouting(verbs=("predict",)), ["iris", "iris:predict"]),
        (PathRouting(verbs=()), ["iris"]),
        (HeaderRouting("x-model"), ["iris"]),
        (HostRouting(), ["iris"]),
    ],
)
def test_a_scope_for_each_key(routing: Routing, keys: list[str]) -> None:
    resources = compile_scopes(Gateway("edge", 80, routing=routing), a_model("iris"))
    assert [r.name for r in resources] == [f"0.0.0.0:80/{key}" for key in keys]
    for resource, key in zip(resources, keys, strict=True):
        message = decoded(resource)
        assert [f.string_key for f in message.key.fragments] == ["0.0.0.0:80", key]
        assert message.route_configuration_name == "iris"
        assert resource.refs == {(ROUTES, "iris")}


def test_scopes_stay_when_the_gateway_moves() -> None:
    moved = Gateway("edge", 81, scope_id="0.0.0.0:80")
    before, after = (compile_scopes(g, a_model("iris")) for g in (Gateway("edge", 80), moved))
    assert [(r.name, r.version) for r in before] == [(r.name, r.version) for r in after]


@some
@given(gateways("g1"), models("iris"))
def test_envoy_accepts_every_scope(gateway: Gateway, model: Model) -> None:
    resources = compile_scopes(gateway, model)
    check(resources)
    assert len({r.name for r in resources}) == len(list(scope_keys(gateway, model)))
    assert all(r.type_url == SCOPED_ROUTES for r in resources)
