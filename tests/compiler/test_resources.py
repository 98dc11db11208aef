"""Resources are compiled once for as long as their object stays equal."""

from __future__ import annotations

from dataclasses import replace

from controlplane.compiler import Compiler
from controlplane.compiler.resources import CompiledObjects
from controlplane.domain import Gateway
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import SECRET
from controlplane.snapshot import Audience, Client
from tests.compiler.values import EDGE, a_model, a_state, with_model
from tests.pki import pair


def test_results_of_deleted_objects_are_dropped() -> None:
    compiler, gateways = Compiler(), {"edge": Gateway("edge", 8080)}
    for i in range(300):
        compiler.compile(State(gateways, {f"m{i}": a_model(f"m{i}")}), NO_LIVE_ENDPOINTS, EDGE, i)
    assert len(compiler._objects._routes) < 100
    assert len(compiler._objects._clusters) < 200


def test_equal_objects_have_the_same_resources() -> None:
    objects, state, again = CompiledObjects(), a_state(1), a_state(1)
    for audience in (EDGE, Audience(("edge",), Client.GRPC)):
        first = objects.model(state, NO_LIVE_ENDPOINTS, state.models["model-0"], audience, 0)
        second = objects.model(again, NO_LIVE_ENDPOINTS, again.models["model-0"], audience, 0)
        assert len(first) == len(second)
        assert all(a is b for a, b in zip(first, second, strict=True))
    assert objects.listener(state.gateways["edge"]) is objects.listener(again.gateways["edge"])


def test_a_changed_object_is_compiled_again() -> None:
    objects, state = CompiledObjects(), a_state(1)
    first = objects.model(state, NO_LIVE_ENDPOINTS, state.models["model-0"], EDGE, 0)
    switched = with_model(state, a_model("model-0", green=10_000))
    second = objects.model(switched, NO_LIVE_ENDPOINTS, switched.models["model-0"], EDGE, 0)
    assert [a.name for a, b in zip(first, second, strict=True) if a is not b] == ["model-0"]
    gateway = state.gateways["edge"]
    assert objects.listener(gateway) != objects.listener(replace(gateway, port=9090))


def test_an_audience_gets_only_the_models_that_it_names() -> None:
    objects, state = CompiledObjects(), a_state(1)
    model = state.models["model-0"]
    assert objects.model(state, NO_LIVE_ENDPOINTS, model, replace(EDGE, models=frozenset(("model-0",))), 0)
    assert objects.model(state, NO_LIVE_ENDPOINTS, model, replace(EDGE, models=frozenset(("other",))), 0) == []
    assert objects.model(state, NO_LIVE_ENDPOINTS, model, Audience(), 0) == []


def test_only_secrets_that_are_referred_to_are_returned() -> None:
    objects = CompiledObjects()
    state = State({}, {}, {n: pair().secret(n) for n in ("a", "b")})
    (listener,) = objects.listener(Gateway("edge", 80))
    resource = replace(listener, refs=frozenset({(SECRET, "b")}))
    (secret,) = objects.secrets(state, [resource, resource])
    assert secret.name == "b"
    # A secret that is deleted is forgotten at once.
    assert not objects.forget(State())
    assert len(objects._secrets) == 0
