"""Body gateways: their own routes, their scopes, and what changes when models do."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.body_routing import compile_own_resources, models_by_key
from controlplane.compiler.decode import decoded
from controlplane.domain import BodyRouting, Endpoint, Gateway, Model, Object, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import LISTENER, ORDER, ROUTES, SCOPED_ROUTES
from controlplane.snapshot import Audience, Snapshot

EDGE = Gateway("edge", 80, routing=BodyRouting())
BOTH = tuple(Version(name, (Endpoint("10.0.0.1", port),)) for name, port in (("blue", 8001), ("green", 8002)))
LLAMA = Model("llama", ("edge",), BOTH, {"blue": 10_000}, ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1:8b"))
IRIS = Model("iris", ("edge",), BOTH, {"blue": 10_000})


def state(*objects: Object) -> State:
    return State().applied(Changes({o.resource_name: o for o in objects}))


def own_routes(*models: Model, gateway: Gateway = EDGE) -> Any:
    """Return the RouteConfiguration of a gateway itself."""
    return decoded(compile_own_resources(gateway, models_by_key(gateway, models))[0])


def answer(config: Any, path: str) -> Any:
    """Return the body with which a route for exactly this path answers."""
    (route,) = (r for r in config.virtual_hosts[0].routes if r.match.path == path)
    return json.loads(route.direct_response.body.inline_string)


def the_list(config: Any) -> list[str]:
    (route,) = (r for r in config.virtual_hosts[0].routes if r.match.safe_regex.regex)
    return [model["id"] for model in json.loads(route.direct_response.body.inline_string)["data"]]


def test_the_list_has_every_key_of_the_gateways_models() -> None:
    config = own_routes(LLAMA, IRIS, replace(IRIS, name="other", gateways=("inner",)))
    assert the_list(config) == ["iris", "llama3.1:8b", "meta-llama/Llama-3.1-8B-Instruct"]
    assert [m["name"] for m in answer(config, "/api/tags")["models"]] == the_list(config)


def test_a_gateway_that_hides_its_models_lists_none_and_serves_them() -> None:
    gateway = replace(EDGE, hide_models=True, routing=BodyRouting(default_model="iris"))
    assert the_list(own_routes(LLAMA, IRIS, gateway=gateway)) == []
    scopes = compiled(Compiler(), state(gateway, LLAMA, IRIS)).resources[SCOPED_ROUTES]
    assert {"0.0.0.0:80/llama3.1:8b", "0.0.0.0:80/iris"} < scopes.keys()
    assert decoded(scopes["0.0.0.0:80/*default"]).route_configuration_name == "iris"


def test_a_model_can_be_asked_for_by_its_name_however_it_is_escaped() -> None:
    config = own_routes(LLAMA)
    for path in ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama%2FLlama-3.1-8B-Instruct"):
        assert answer(config, f"/v1/models/{path}")["id"] == "meta-llama/Llama-3.1-8B-Instruct"
    for path in ("llama3.1:8b", "llama3.1%3A8b"):
        assert answer(config, f"/v1/models/{path}")["id"] == "llama3.1:8b"


def test_the_limit_of_direct_responses_grows_with_the_list() -> None:
    assert not own_routes(IRIS).HasField("max_direct_response_body_size_bytes")
    config = own_routes(*(replace(IRIS, name=f"iris-{i}") for i in range(2000)))
    longest = max(len(r.direct_response.body.inline_string) for r in config.virtual_hosts[0].routes)
    assert config.max_direct_response_body_size_bytes.value == longest > 100_000


def test_requests_are_matched_against_few_routes_before_the_model_is_found() -> None:
    first, second = own_routes(LLAMA).virtual_hosts[0].routes[:2]
    assert [first.match.prefix, second.match.prefix] == ["/api/", "/"]
    for route in (first, second):
        (method,) = route.match.headers
        assert (method.invert_match, method.string_match.safe_regex.regex) == (True, "GET|HEAD")


@pytest.mark.parametrize(
    ("default", "target"), [("", "gateways/edge"), ("iris", "iris"), ("llama3.1:8b", "llama"), ("no-such", "gateways/edge")]
)
def test_requests_without_a_model_go_to_the_default_model(default: str, target: str) -> None:
    gateway = replace(EDGE, routing=BodyRouting(default_model=default))
    snapshot = compiled(Compiler(), state(gateway, LLAMA, IRIS))
    scopes = {name: decoded(r).route_configuration_name for name, r in snapshot.resources[SCOPED_ROUTES].items()}
    assert (scopes["0.0.0.0:80/*"], scopes["0.0.0.0:80/*default"]) == ("gateways/edge", target)


def compiled(compiler: Compiler, desired: State, previous: Snapshot | None = None) -> Snapshot:
    return compiler.compile(
        desired, NO_LIVE_ENDPOINTS, Audience(("edge",)), (previous.revision if previous else 0) + 1, previous
    )


def changed(before: Snapshot, after: Snapshot) -> set[tuple[str, str]]:
    """Return the type and the name of each resource that differs."""
    old = {(t.rpartition(".")[2], n): r.version for t in ORDER for n, r in before.resources[t].items()}
    new = {(t.rpartition(".")[2], n): r.version for t in ORDER for n, r in after.resources[t].items()}
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


def test_a_switch_changes_one_small_route_and_not_the_list() -> None:
    compiler = Compiler()
    many = [replace(IRIS, name=f"iris-{i}") for i in range(2000)]
    desired = state(EDGE, *many)
    before = compiled(compiler, desired)
    switched = replace(many[-1], split={"green": 10_000})
    after = compiled(compiler, desired.applied(Changes({switched.resource_name: switched})), before)
    assert changed(before, after) == {("RouteConfiguration", "iris-1999")}
    assert after.resources[LISTENER] is before.resources[LISTENER]
    assert after.resources[SCOPED_ROUTES] is before.resources[SCOPED_ROUTES]
    assert len(after.resources[ROUTES]["iris-1999"].body) < 1024


def test_a_new_model_or_key_changes_the_list_and_no_listener() -> None:
    compiler = Compiler()
    desired = state(EDGE, IRIS)
    before = compiled(compiler, desired)
    for model in (LLAMA, replace(IRIS, keys=("iris", "flower"))):
        step = desired.applied(Changes({model.resource_name: model}))
        after = compiled(compiler, step, before)
        # The result does not depend on the snapshot before.
        assert changed(after, compiled(Compiler(), step)) == set()
        assert ("RouteConfiguration", "gateways/edge") in changed(before, after)
        assert after.resources[LISTENER] is before.resources[LISTENER]


def test_the_default_models_scope_follows_the_model() -> None:
    compiler = Compiler()
    desired = state(replace(EDGE, routing=BodyRouting(default_model="iris")), IRIS, LLAMA)
    before = compiled(compiler, desired)
    after = compiled(compiler, desired.applied(Changes({"models/iris": None})), before)
    assert decoded(after.resources[SCOPED_ROUTES]["0.0.0.0:80/*default"]).route_configuration_name == "gateways/edge"


def test_an_audience_that_names_models_gets_a_list_of_these() -> None:
    audience = Audience(("edge",), models=frozenset({"iris"}))
    snapshot = Compiler().compile(state(EDGE, IRIS, LLAMA), NO_LIVE_ENDPOINTS, audience, 1)
    assert the_list(decoded(snapshot.resources[ROUTES]["gateways/edge"])) == ["iris"]


def test_a_switch_beside_thousands_of_models_is_compiled_fast() -> None:
    compiler = Compiler()
    many = [replace(IRIS, name=f"iris-{i}") for i in range(2000)]
    desired = state(EDGE, *many)
    before = compiled(compiler, desired)
    compiled(compiler, desired.applied(Changes({many[0].resource_name: replace(many[0], split={"green": 10_000})})), before)
    switched = desired.applied(Changes({many[1].resource_name: replace(many[1], split={"green": 10_000})}))
    start = time.process_time()
    compiled(compiler, switched, before)
    # The list takes ten times as long.
    assert time.process_time() - start < 0.01
