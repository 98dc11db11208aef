"""A gateway's own answers: where they are found, and what changes them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.decode import decoded
from controlplane.compiler.own_answers import compile_own_answers, own_keys
from controlplane.domain import BodyRouting, Gateway, HeaderRouting, HostRouting, Model, PathRouting, Routing
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Resource
from tests.compiler.cases import check
from tests.compiler.values import EDGE, a_model, a_state, shared_types, with_model

GATEWAY = Gateway("edge", 80)


def answers(resources: list[Resource]) -> dict[str, Any]:
    """Return the answer at each path."""
    config = decoded(resources[0])
    return {r.match.path: json.loads(r.direct_response.body.inline_string) for r in config.virtual_hosts[0].routes}


def scopes(resources: list[Resource]) -> list[str]:
    return [r.name for r in resources if r.type_url == SCOPED_ROUTES]


@pytest.mark.parametrize(
    ("routing", "keys"),
    [
        (PathRouting(), {"", "live", "ready", "index"}),
        (PathRouting(2), {"", "health", "repository", "models"}),
        (PathRouting(1), {"", "v1", "v2", "ping", "health"}),
        (PathRouting(16), {""}),
        (HeaderRouting("x-model"), {""}),
        (HostRouting(), set()),
        (BodyRouting(), set()),
    ],
)
def test_the_keys_are_those_of_requests_that_name_no_model(routing: Routing, keys: set[str]) -> None:
    gateway = replace(GATEWAY, routing=routing)
    assert set(own_keys(gateway)) == keys
    resources = compile_own_answers(gateway, [a_model()])
    check(resources)
    assert scopes(resources) == [f"0.0.0.0:80/{key}" for key in own_keys(gateway)]


def test_a_model_keeps_its_key() -> None:
    models = [a_model("ready"), replace(a_model("iris"), keys=("iris", "index"))]
    assert set(scopes(compile_own_answers(GATEWAY, models))) == {"0.0.0.0:80/", "0.0.0.0:80/live"}


def test_models_are_listed_unless_they_are_hidden() -> None:
    models = [a_model("iris"), replace(a_model("wine"), keys=("Wine.v2", "vin"))]
    listed = answers(compile_own_answers(GATEWAY, models))
    assert listed["/v1/models"] == {"models": ["iris", "Wine.v2", "vin"]}
    assert [m["name"] for m in listed["/v2/repository/index"]] == ["iris", "Wine.v2", "vin"]
    hidden = answers(compile_own_answers(replace(GATEWAY, hide_models=True), models))
    assert listed.keys() - hidden.keys() == {"/v1/models", "/v2/repository/index"}
    assert "iris" not in json.dumps(hidden)


def test_a_long_list_fits_its_limit() -> None:
    models = [a_model(f"model-{i:04}") for i in range(2_000)]
    (config, *_) = compile_own_answers(GATEWAY, models)
    limit = decoded(config).max_direct_response_body_size_bytes.value
    assert max(len(json.dumps(a, separators=(",", ":"))) for a in answers([config]).values()) == limit > 80_000


def test_a_switch_does_not_change_them_and_a_new_model_does() -> None:
    compiler, state = Compiler(), a_state(3)
    name = "gateways/edge"
    first = compiler.compile(state, NO_LIVE_ENDPOINTS, EDGE, 1)
    switched = with_model(state, a_model("model-1", green=10_000))
    second = compiler.compile(switched, NO_LIVE_ENDPOINTS, EDGE, 2, first)
    assert second.resources[ROUTES][name] is first.resources[ROUTES][name]
    assert SCOPED_ROUTES in shared_types(first, second)
    created = with_model(switched, a_model("new"))
    third = compiler.compile(created, NO_LIVE_ENDPOINTS, EDGE, 3, second)
    assert third.resources[ROUTES][name] is not second.resources[ROUTES][name]
    # The same as in a process that starts anew, and for an audience that gets only some of the models.
    assert Compiler().compile(created, NO_LIVE_ENDPOINTS, EDGE, 3).versions == third.versions
    some = replace(EDGE, models=frozenset({"new", "unknown"}))
    config = compiler.compile(created, NO_LIVE_ENDPOINTS, some, 3).resources[ROUTES][name]
    assert answers([config])["/v1/models"] == {"models": ["new"]}


def test_a_model_that_takes_a_key_and_gives_it_back_changes_the_scope() -> None:
    compiler, name = Compiler(), "0.0.0.0:8080/ready"
    without = a_state(1)
    first = compiler.compile(without, NO_LIVE_ENDPOINTS, EDGE, 1)
    # An earlier version of Turnout accepted such a model.
    taken = State(without.gateways, {**without.models, "ready": a_model("ready")})
    second = compiler.compile(taken, NO_LIVE_ENDPOINTS, EDGE, 2, first)
    third = compiler.compile(without, NO_LIVE_ENDPOINTS, EDGE, 3, second)
    targets = [decoded(s.resources[SCOPED_ROUTES][name]).route_configuration_name for s in (first, second, third)]
    assert targets == ["gateways/edge", "ready", "gateways/edge"]


def test_memory_for_answers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.compiler.resources._OWN", 3)
    compiler = Compiler()
    models: dict[str, Model] = {f"m{i}": a_model(f"m{i}") for i in range(10)}
    state = State({"edge": GATEWAY}, models)
    for name in models:
        compiler.compile(state, NO_LIVE_ENDPOINTS, replace(EDGE, models=frozenset({name})), 1)
    assert len(compiler._objects._own) <= 3
