"""Resources that Envoy would refuse are refused here, with the resource and the field.

`tests/envoy/test_refused.py` sends the same breaks to a real Envoy.
"""

from __future__ import annotations

import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.decode import owner
from controlplane.compiler.validation import by_owner
from controlplane.domain import Endpoint, Gateway, Model, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, ENDPOINTS, ROUTES, SCOPED_ROUTES
from controlplane.errors import Code, Error
from controlplane.snapshot import Audience, Resource, Snapshot
from tests.compiler.breaks import BREAKS, EDGE, Break, base, broken
from tests.compiler.cases import check
from tests.compiler.values import everything


def test_a_whole_snapshot_passes() -> None:
    check(everything(base()), base())


@pytest.mark.parametrize("wrong", BREAKS, ids=lambda b: b.name)
def test_a_break_is_found(wrong: Break) -> None:
    resource = broken(wrong)
    with pytest.raises(Error) as caught:
        check([resource])
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.reason == "ENVOY_WOULD_REFUSE"
    assert [v.field for v in caught.value.violations] == [wrong.field]
    assert caught.value.metadata == {"objects": owner(resource)}


def test_a_reference_to_a_missing_resource_is_the_compilers_fault() -> None:
    whole = base()
    others = [r for r in everything(whole) if (r.type_url, r.name) != (CLUSTER, "iris/green")]
    lacking = Snapshot.of(1, whole.audience, others)
    with pytest.raises(Error) as caught:
        check([whole.resources[ROUTES]["iris"]], lacking)
    assert caught.value.code is Code.INTERNAL
    assert caught.value.message == (
        "Envoy would refuse RouteConfiguration[iris]: refers to Cluster 'iris/green', which does not exist"
    )


def test_two_scopes_with_one_key_conflict() -> None:
    blue = Version("blue", (Endpoint("10.0.0.1", 8000),))
    models = {n: Model(n, ("edge",), (blue,), {"blue": 10_000}, keys=("same",)) for n in ("iris", "wine")}
    states = [State({"edge": Gateway("edge", 8080)}, {n: m}) for n, m in models.items()]
    first, second = (Compiler().compile(s, NO_LIVE_ENDPOINTS, Audience(("edge",)), 1) for s in states)
    scope = Resource.of(SCOPED_ROUTES, "other", second.resources[SCOPED_ROUTES][f"{EDGE}/same"].body)
    with pytest.raises(Error, match=f"scope '{EDGE}/same' has the same key"):
        check([first.resources[SCOPED_ROUTES][f"{EDGE}/same"], scope], first)


def test_problems_are_reported_for_the_object_that_the_resource_comes_from() -> None:
    resources = [Resource.of(CLUSTER, "iris/blue", b"\xff\xff"), Resource.of(ENDPOINTS, "wine/v.1", b"")]
    with pytest.raises(Error) as caught:
        check(resources)
    error = by_owner(caught.value, resources)
    assert [v.field for v in error.violations] == ["models/iris", "models/wine"]
    assert error.violations[0].description == "Envoy would refuse Cluster[iris/blue]: is not a message of its type"
    assert (error.code, error.reason, error.message) == (caught.value.code, "ENVOY_WOULD_REFUSE", caught.value.message)


def test_a_body_that_is_not_a_message_is_a_problem() -> None:
    with pytest.raises(Error, match=r"Cluster\[iris/blue\]: is not a message of its type"):
        check([Resource.of(CLUSTER, "iris/blue", b"\xff\xff")])


def test_many_problems_are_counted_and_the_first_named() -> None:
    resources = [Resource.of(ENDPOINTS, f"m{i}/v", b"") for i in range(200)]
    with pytest.raises(Error, match="and 197 more") as caught:
        check(resources)
    assert len(caught.value.violations) == 100


def test_an_error_that_is_no_objects_fault_keeps_its_fields() -> None:
    error = Error(Code.INTERNAL, "ENVOY_WOULD_REFUSE", "no")
    assert by_owner(error, everything(base())) is error
