"""Rate limits, as compiled: buckets in a resource of their own, and a few bytes in the route."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.decode import decoded, owner, unpack
from controlplane.compiler.rate_limits import limits_of
from controlplane.compiler.routes import compile_routes
from controlplane.domain import Endpoint, Gateway, Model, RateLimit, RateLimiting, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import EXTENSIONS, LISTENER, ROUTES
from controlplane.errors import Error
from controlplane.snapshot import Audience, Snapshot
from tests.compiler.cases import check

EDGE = Gateway("edge", 80, rate_limiting=RateLimiting())
V1 = Version("v1", (Endpoint("10.0.0.1", 80),))
IRIS = Model("iris", ("edge",), (V1,), {"v1": 10_000}, rate_limits=(RateLimit(10), RateLimit(2, 60.0, header="x-user")))
WINE = Model("wine", ("edge",), (V1,), {"v1": 10_000}, rate_limits=(RateLimit(5, client_address=True),))
FREE = Model("free", ("edge",), (V1,), {"v1": 10_000})


def state(*models: Model, gateway: Gateway = EDGE) -> State:
    return State({"edge": gateway}, {m.name: m for m in models})


def snapshot(*models: Model, gateway: Gateway = EDGE) -> Snapshot:
    return Compiler().compile(state(*models, gateway=gateway), NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)


def extension(of: Snapshot, name: str) -> Any:
    """Return the configuration of a filter."""
    return unpack(decoded(of.resources[EXTENSIONS][f"gateways/edge/{name}"]).typed_config)


def limiter(of: Snapshot) -> Any:
    """Return the filter that applies rate limits."""
    check(r for resources in of.resources.values() for r in resources.values())
    return extension(of, "rate-limits")


def names_of_filters(of: Snapshot) -> list[str]:
    (listener,) = of.resources[LISTENER].values()
    return [f.name for f in unpack(decoded(listener).filter_chains[0].filters[0].typed_config).http_filters]


def buckets(of: Snapshot) -> dict[str, tuple[int, float]]:
    """Return the tokens and the seconds of each bucket, by its descriptor."""
    return {
        " ".join(f"{e.key}={e.value or '*'}" for e in d.entries): (
            d.token_bucket.max_tokens,
            d.token_bucket.fill_interval.ToTimedelta().total_seconds(),
        )
        for d in limiter(of).descriptors
    }


def test_each_limit_has_a_bucket_and_each_user_one_of_its_own() -> None:
    assert buckets(snapshot(IRIS, WINE, FREE)) == {
        "limit=all model=iris": (10, 1),
        "limit=header:x-user model=* limits=2/60.0 header:x-user user=*": (2, 60),
        "limit=address model=* limits=5/1.0 address remote_address=*": (5, 1),
    }


def test_models_with_the_same_limits_by_user_share_a_descriptor() -> None:
    """Envoy compares each request with every descriptor by user, so they must not be as many as models."""
    limits = (RateLimit(3), RateLimit(5, header="x-user"), RateLimit(50, 60.0, header="x-user"))
    models = [replace(FREE, name=f"m{i:02}", rate_limits=(*limits[1:], RateLimit(i + 1))) for i in range(20)]
    of = snapshot(*models, replace(IRIS, rate_limits=limits[:2]))
    by_user = {descriptor: bucket for descriptor, bucket in buckets(of).items() if "*" in descriptor}
    both = "limits=5/1.0 header:x-user, 50/60.0 header:x-user"
    assert by_user == {
        f"limit=header:x-user model=* {both} user=*": (5, 1),
        f"limit=header:x-user 1 model=* {both} user=*": (50, 60),
        "limit=header:x-user model=* limits=5/1.0 header:x-user user=*": (5, 1),
    }
    assert len(buckets(of)) == 3 + 21
    # A request has at most one descriptor for each of these, whatever the number of models.
    assert [r.actions[0].generic_key.descriptor_value for r in limiter(of).rate_limits] == [
        "all",
        "header:x-user",
        "header:x-user 1",
    ]


@pytest.mark.parametrize(
    ("max_users", "models", "remembered"), [(10, 1, 10), (10, 20, 200), (90_000, 2, 100_000), (200_000, 9, 200_000)]
)
def test_models_that_share_a_descriptor_share_the_users_that_are_remembered(
    max_users: int, models: int, remembered: int
) -> None:
    limited = [replace(WINE, name=f"m{i:02}") for i in range(models)]
    gateway = replace(EDGE, rate_limiting=RateLimiting(max_users=max_users))
    assert limiter(snapshot(*limited, IRIS, gateway=gateway)).max_dynamic_descriptors.value == remembered


def test_a_gateway_applies_limits_in_front_of_the_router_and_none_without_rate_limiting() -> None:
    assert names_of_filters(snapshot(IRIS))[-4:] == [
        "gateways/edge/users",
        "turnout.limits",
        "gateways/edge/rate-limits",
        "envoy.filters.http.router",
    ]
    plain = snapshot(FREE, gateway=replace(EDGE, rate_limiting=None))
    assert not [name for name in names_of_filters(plain) if name.startswith(("gateways/", "turnout.limits"))]
    assert not plain.resources[EXTENSIONS]
    assert limits_of((FREE,)) == ()


def test_users_are_read_from_headers_and_cookies_once_each() -> None:
    limits = (RateLimit(1, header="x-user"), RateLimit(1, cookie="uid"), RateLimit(1), RateLimit(1, client_address=True))
    of = snapshot(IRIS, replace(WINE, rate_limits=limits))
    assert [(r.header, r.cookie) for r in extension(of, "users").request_rules] == [("", "uid"), ("x-user", "")]
    last_actions = [limit.actions[-1] for limit in limiter(of).rate_limits]
    users = [action.metadata.metadata_key.path[0].key for action in last_actions if action.HasField("metadata")]
    assert users == ["cookie:uid", "header:x-user"]
    (host,) = decoded(of.resources[ROUTES]["wine"]).virtual_hosts
    assert not host.rate_limits, "Envoy will ignore them, and warns of them"


def test_a_resource_of_the_limits_belongs_to_the_gateway() -> None:
    assert {owner(r) for r in snapshot(IRIS).resources[EXTENSIONS].values()} == {"gateways/edge"}


@pytest.mark.parametrize(("requests", "tokens", "seconds"), [(100, 10, 1.0), (25, 2, 0.8), (5, 1, 2.0)])
def test_a_limit_is_divided_by_the_expected_nodes(requests: int, tokens: int, seconds: float) -> None:
    gateway = Gateway("edge", 80, expected_nodes=10, rate_limiting=RateLimiting(divide_by_expected_nodes=True))
    (descriptor,) = limiter(snapshot(replace(FREE, rate_limits=(RateLimit(requests),)), gateway=gateway)).descriptors
    bucket = descriptor.token_bucket
    assert (bucket.max_tokens, bucket.tokens_per_fill.value) == (tokens, tokens)
    assert bucket.fill_interval.ToTimedelta().total_seconds() == seconds


def test_a_switch_changes_no_listener_and_has_a_few_bytes_of_the_limits() -> None:
    compiler = Compiler()
    green = replace(V1, name="green")
    iris = replace(IRIS, versions=(V1, green))
    before = compiler.compile(state(iris, FREE), NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)
    switched = state(replace(iris, split={"green": 10_000}), FREE)
    after = compiler.compile(switched, NO_LIVE_ENDPOINTS, Audience(("edge",)), 2, before)
    assert after.resources[LISTENER] is before.resources[LISTENER]
    assert after.resources[EXTENSIONS] is before.resources[EXTENSIONS]
    assert len(compile_routes(iris).body) - len(compile_routes(replace(iris, rate_limits=())).body) < 120
    # Other limits change no listener: it would drain its connections.
    other = compiler.compile(
        state(replace(iris, rate_limits=(RateLimit(11),)), FREE), NO_LIVE_ENDPOINTS, after.audience, 3, after
    )
    assert [d.token_bucket.max_tokens for d in limiter(other).descriptors] == [11]
    assert {t for t in after.resources if after.resources[t] is not other.resources[t]} == {EXTENSIONS, ROUTES}
    none = compiler.compile(state(FREE), NO_LIVE_ENDPOINTS, after.audience, 4, other)
    assert none.resources[LISTENER] is before.resources[LISTENER]


def test_retry_after_is_the_time_to_the_next_request() -> None:
    def retry_after(model: Model, *divisors: int) -> dict[str, str]:
        fields = decoded(compile_routes(model, 0, divisors or (1,))).virtual_hosts[0].metadata.filter_metadata["turnout"]
        return {key: value for key, value in fields.items() if key.startswith("retry_after")}

    assert (retry_after(IRIS), retry_after(WINE)) == ({"retry_after": "30"}, {"retry_after": "1"})
    # For each gateway that divides limits, the time at one of its nodes.
    assert retry_after(IRIS, 1, 3) == {"retry_after": "30", "retry_after_3": "90"}
    three = replace(EDGE, expected_nodes=3, rate_limiting=RateLimiting(divide_by_expected_nodes=True))
    (header,) = limiter(snapshot(IRIS, gateway=three)).response_headers_to_add
    assert header.header.value == "%METADATA(VIRTUAL_HOST:turnout:retry_after_3)%"
    (host,) = decoded(snapshot(IRIS, gateway=three).resources[ROUTES]["iris"]).virtual_hosts
    assert host.metadata.filter_metadata["turnout"]["retry_after_3"] == "90"
    assert "retry_after" not in host.metadata.filter_metadata["turnout"]


def test_a_gateway_must_apply_limits() -> None:
    plain = replace(EDGE, rate_limiting=None)
    for before, changes in (
        (State({"edge": plain}, {}), {"models/iris": IRIS}),
        (state(IRIS), {"gateways/edge": plain}),
    ):
        with pytest.raises(Error) as caught:
            before.applied(Changes(changes))
        assert caught.value.violations[0].field == "models/iris.gateways[0]"
        assert "has no `rate_limiting`" in caught.value.message
