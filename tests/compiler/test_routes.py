"""Routes: the split, the settings for requests, and where sticky users go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controlplane.compiler.decode import decoded
from controlplane.compiler.listeners import SCOPE_HEADER
from controlplane.compiler.mirrors import split_order
from controlplane.compiler.routes import SAFE_RETRIES, UNSAFE_RETRIES, compile_routes
from controlplane.domain import FULL_SHARE, Endpoint, Model, Retries, Sticky, Version
from controlplane.envoy_types import CLUSTER
from tests.compiler.cases import check
from tests.compiler.strategies import models, splits
from tests.compiler.values import a_model
from tests.nouns import some


def weights(model: Model) -> list[tuple[str, int]]:
    """Return the weights of the last route by version, in Envoy's order."""
    action = decoded(compile_routes(model)).virtual_hosts[0].routes[-1].route
    return [(c.name.partition("/")[2], c.weight.value) for c in action.weighted_clusters.clusters]


@some
@given(models("iris"))
def test_weights_are_the_split_newest_first(model: Model) -> None:
    shares = weights(model)
    assert dict(shares) == dict(model.split)
    assert sum(w for _, w in shares) == FULL_SHARE
    order = [v.name for v in (reversed(model.versions) if model.sticky is not None else split_order(model))]
    assert [n for n, _ in shares] == sorted((n for n, _ in shares), key=order.index)


@some
@given(models("iris"))
def test_every_route_has_the_settings_of_its_model(model: Model) -> None:
    config = decoded(compile_routes(model))
    routes = config.virtual_hosts[0].routes
    with_endpoints = [v.name for v in model.versions if v.endpoints]
    empty = model.sticky is not None and model.sticky.header != ""
    one_protocol = 1 + empty + (len(with_endpoints) if model.preview_header else 0)
    assert len(routes) == one_protocol * (2 if model.has_grpc_ports else 1)
    for route in routes:
        assert route.match.prefix == "/"
        assert route.route.HasField("timeout")
        assert route.route.HasField("idle_timeout")
        assert route.route.HasField("regex_rewrite") == (model.rewrite is not None)
    assert routes[-1].route.weighted_clusters.use_hash_policy.value == (model.sticky is not None)
    assert bool(routes[-1].route.hash_policy) == (model.sticky is not None)
    assert config.virtual_hosts[0].HasField("retry_policy") == (model.retries.attempts > 0)


def chosen(model: Model, number: int) -> str:
    """Return the version that Envoy chooses: the number modulo the total weight falls into the interval of one cluster."""
    remaining = number % FULL_SHARE
    for name, weight in weights(model):
        if remaining < weight:
            return name
        remaining -= weight
    raise AssertionError("the weights don't sum to the whole")


names = ["v1", "v2", "v3"]


@some
@given(splits(names), splits(names), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50))
def test_users_only_move_to_newer_versions_while_those_grow(a: dict[str, int], b: dict[str, int], users: list[int]) -> None:
    """If each group of the newest versions keeps at least its share, no user moves to an older version."""
    versions = tuple(Version(n, (Endpoint("10.0.0.1", 80),)) for n in names)
    model = Model("iris", ("edge",), versions, a, sticky=Sticky(header="x-user"))
    grown = {n: b[n] for n in names}
    for i in range(1, len(names)):
        newest, before = sum(grown[n] for n in names[i:]), sum(a[n] for n in names[i:])
        if newest < before:  # A group would shrink: keep the split instead.
            grown = dict(a)
            break
    after = replace(model, split=grown)
    for user in users:
        assert names.index(chosen(after, user)) >= names.index(chosen(model, user))


def test_going_back_returns_exactly_the_users_who_had_moved() -> None:
    versions = tuple(Version(n, (Endpoint("10.0.0.1", 80),)) for n in ("blue", "green"))
    steps = [
        Model("iris", ("edge",), versions, {"blue": FULL_SHARE - g, "green": g}, sticky=Sticky(header="u"))
        for g in (0, 2500, 0)
    ]
    users = [(i * 2654435761) % 2**64 for i in range(2000)]
    places = [[chosen(m, u) for u in users] for m in steps]
    assert places[0] == places[2]
    assert 0.2 < places[1].count("green") / len(users) < 0.3


def test_a_retry_goes_to_another_endpoint_and_is_safe_by_default() -> None:
    def policy(retries: Retries) -> Any:
        return decoded(compile_routes(replace(a_model(), retries=retries))).virtual_hosts[0].retry_policy

    safe = policy(Retries(2))
    assert (safe.retry_on, safe.num_retries.value) == (SAFE_RETRIES, 2)
    assert [p.name for p in safe.retry_host_predicate] == ["previous_hosts"]
    assert not safe.HasField("per_try_timeout")
    unsafe = policy(Retries(1, unsafe=True, per_try_timeout=2.5))
    assert unsafe.retry_on == UNSAFE_RETRIES
    assert unsafe.per_try_timeout.ToTimedelta().total_seconds() == 2.5


def test_bodies_are_buffered_only_where_the_name_of_the_model_is_replaced() -> None:
    model = replace(a_model("iris"), retries=Retries(0, request_body_buffer_limit=5))
    assert not decoded(compile_routes(model)).virtual_hosts[0].HasField("request_body_buffer_limit")
    replacing = replace(model, versions=(replace(model.versions[0], upstream_model="llama"), *model.versions[1:]))
    assert decoded(compile_routes(replacing)).virtual_hosts[0].request_body_buffer_limit.value == 5


def test_a_switch_between_versions_with_hosts_stays_small() -> None:
    here, host = (Endpoint("10.0.0.1", 80),), "a-rather-long-name.models.svc.cluster.local:8443"
    versions = tuple(Version(name, here, host=host, upstream_model="llama") for name in ("blue", "green"))
    model = Model("iris", ("edge",), versions, {"blue": 5_000, "green": 5_000}, preview_header="x-version")
    assert len(compile_routes(model).body) < 1000


def test_the_route_removes_the_scope_header() -> None:
    assert list(decoded(compile_routes(a_model())).request_headers_to_remove) == [SCOPE_HEADER]


@some
@given(models("iris"))
def test_envoy_accepts_every_route_and_it_refers_to_its_clusters(model: Model) -> None:
    resource = compile_routes(model)
    check([resource])
    with_share = {f"iris/{name}" for name, share in model.split.items() if share}
    assert {(CLUSTER, name) for name in with_share} <= resource.refs
    if model.mirror is not None and model.split.get(model.mirror.version) != FULL_SHARE:
        assert (CLUSTER, f"iris/{model.mirror.version}/mirror") in resource.refs
