"""What is always true of compiled state, whatever it is compiled of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.compiler import Compiler, audiences
from controlplane.compiler.decode import decoded
from controlplane.compiler.routes import compile_routes
from controlplane.domain import FULL_SHARE, Endpoint, Model, Sticky, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import ORDER
from controlplane.snapshot import Snapshot
from tests.compiler.cases import check
from tests.compiler.strategies import GATEWAYS, MODELS, gateways, models, splits, states

quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
long = settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))

changes = st.lists(
    st.one_of(
        st.sampled_from(MODELS).flatmap(lambda n: st.tuples(st.just(n), st.none() | models(n))),
        st.sampled_from(GATEWAYS).flatmap(lambda n: st.tuples(st.just(n), gateways(n))),
    ),
    max_size=6,
)


def changed(state: State, name: str, new: Any) -> State:
    """The state with one object put in place, or taken away."""
    if name in GATEWAYS:
        return State({**state.gateways, name: new}, state.models)
    return State(state.gateways, {n: m for n, m in {**state.models, name: new}.items() if m is not None})


def whole(snapshot: Snapshot) -> Snapshot:
    """It holds what Envoy takes, every name in it leads somewhere, and every version is its content's."""
    check((r for t in ORDER for r in snapshot.resources[t].values()), snapshot)
    again = Snapshot.of(snapshot.revision, snapshot.audience, [r for t in ORDER for r in snapshot.resources[t].values()])
    assert again == snapshot
    return snapshot


def histories_agree(state: State, history: list[tuple[str, Any]]) -> None:
    compiler = Compiler()
    held = {a: whole(compiler.compile(state, NO_LIVE_ENDPOINTS, a, 0)) for a in audiences(state)}
    for i, (name, new) in enumerate(history, 1):
        state = changed(state, name, new)
        for a in audiences(state):
            before = held.get(a)
            held[a] = whole(compiler.compile(state, NO_LIVE_ENDPOINTS, a, i, before))
            assert held[a] == Compiler().compile(state, NO_LIVE_ENDPOINTS, a, i)
            for t in ORDER:
                assert before is None or (before.resources[t] is held[a].resources[t]) == (
                    before.versions[t] == held[a].versions[t]
                )


@quick
@given(states(), changes)
def test_what_came_before_changes_nothing(state: State, history: list[tuple[str, Any]]) -> None:
    """Compiled step by step it is what it is when compiled from nothing; a mapping is kept exactly when its content is."""
    histories_agree(state, history)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@long
@given(states(), changes)
def test_what_came_before_changes_nothing_however_long_one_looks(state: State, history: list[tuple[str, Any]]) -> None:
    histories_agree(state, history)


def weights(model: Model) -> list[tuple[str, int]]:
    """What the last route gives each cluster, in the order that Envoy sees."""
    action = decoded(compile_routes(model)).virtual_hosts[0].routes[-1].route
    return [(c.name.partition("/")[2], c.weight.value) for c in action.weighted_clusters.clusters]


@quick
@given(models("iris"))
def test_weights_are_the_split_newest_first(model: Model) -> None:
    found = weights(model)
    assert dict(found) == dict(model.split)
    assert sum(w for _, w in found) == FULL_SHARE
    order = [v.name for v in reversed(model.versions)]
    assert [n for n, _ in found] == sorted((n for n, _ in found), key=order.index)


@quick
@given(models("iris"))
def test_every_route_has_what_the_model_says_of_requests(model: Model) -> None:
    config = decoded(compile_routes(model))
    routes = config.virtual_hosts[0].routes
    able = [v.name for v in model.versions if v.endpoints]
    assert len(routes) == 1 + (len(able) if model.preview_header else 0)
    for route in routes:
        assert route.match.prefix == "/"
        assert route.route.HasField("timeout")
        assert route.route.HasField("idle_timeout")
        assert route.route.HasField("regex_rewrite") == (model.rewrite is not None)
        copies = [p.cluster for p in route.route.request_mirror_policies]
        wanted = model.mirror is not None and route.route.cluster != f"iris/{model.mirror.version}"
        assert copies == ([f"iris/{model.mirror.version}/mirror"] if model.mirror and wanted else [])
    assert routes[-1].route.weighted_clusters.use_hash_policy.value == (model.sticky is not None)
    assert bool(routes[-1].route.hash_policy) == (model.sticky is not None)
    assert config.virtual_hosts[0].HasField("retry_policy") == (model.retries.attempts > 0)


def chosen(model: Model, number: int) -> str:
    """What Envoy does: the number modulo the total weight falls on the stretch of one cluster."""
    left = number % FULL_SHARE
    for name, weight in weights(model):
        if left < weight:
            return name
        left -= weight
    raise AssertionError("the weights don't sum to the whole")


names = ["v1", "v2", "v3"]


@quick
@given(splits(names), splits(names), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50))
def test_users_only_move_to_newer_versions_while_those_grow(a: dict[str, int], b: dict[str, int], users: list[int]) -> None:
    """When every newest group of versions has at least the share it had, nobody moves to an older one."""
    versions = tuple(Version(n, (Endpoint("10.0.0.1", 80),)) for n in names)
    model = Model("iris", ("edge",), versions, a, sticky=Sticky(header="x-user"))
    grown = {n: b[n] for n in names}
    for i in range(1, len(names)):
        newest, before = sum(grown[n] for n in names[i:]), sum(a[n] for n in names[i:])
        if newest < before:  # Make it grow: keep what it had.
            grown = dict(a)
            break
    after = replace(model, split=grown)
    for user in users:
        assert names.index(chosen(after, user)) >= names.index(chosen(model, user))


def test_an_undo_returns_just_those_who_had_moved() -> None:
    versions = tuple(Version(n, (Endpoint("10.0.0.1", 80),)) for n in ("blue", "green"))
    at = [
        Model("iris", ("edge",), versions, {"blue": FULL_SHARE - g, "green": g}, sticky=Sticky(header="u"))
        for g in (0, 2500, 0)
    ]
    users = [(i * 2654435761) % 2**64 for i in range(2000)]
    places = [[chosen(m, u) for u in users] for m in at]
    assert places[0] == places[2]
    assert 0.2 < places[1].count("green") / len(users) < 0.3
