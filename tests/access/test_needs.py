"""The permissions that each change of desired state needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.access.needs import needs_of
from controlplane.domain import Endpoint, Gateway, Model, Object, OpaqueValue, Secret, Version
from controlplane.domain.gateway import GatewayTls
from controlplane.domain.state import State
from controlplane.domain.upstream_request import Credential

BLUE, GREEN = (Version(v, (Endpoint("10.0.0.1", p),)) for v, p in (("blue", 80), ("green", 81)))
EDGE, STAGING = Gateway("edge", 80), Gateway("staging", 81)
IRIS = Model("iris", ("edge",), (BLUE, GREEN), {"blue": 10_000})
KEY = Secret("key", OpaqueValue("x"))
WITH_KEY = replace(IRIS, versions=(replace(BLUE, credential=Credential("key")), GREEN))


def needs(*before: Object, cut: bool = False, unchanged: bool = False, **after: Object | None) -> list[str]:
    """Return the needs of a change: the new objects by label."""
    state = State(*({o.name: o for o in before if isinstance(o, kind)} for kind in (Gateway, Model, Secret)))
    kinds = {"edge": "gateways", "staging": "gateways", "key": "secrets"}
    objects = {f"{kinds.get(label, 'models')}/{label}": obj for label, obj in after.items()}
    found = needs_of(state, objects, cut=cut, unchanged=unchanged)
    return [f"{n.permission.value} {n.target.name}{f' for {n.because}' if n.because else ''}" for n in found]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (IRIS, replace(IRIS, split={"green": 10_000}), ["switch models/iris"]),
        (IRIS, replace(IRIS, preview_header="x-p"), ["edit models/iris"]),
        (IRIS, replace(IRIS, split={"green": 10_000}, preview_header="x-p"), ["edit models/iris"]),
        (IRIS, None, ["edit models/iris"]),
        (IRIS, IRIS, []),
        (IRIS, WITH_KEY, ["edit models/iris", "use secrets/key for models/iris"]),
        # A later change could send the secret elsewhere.
        (WITH_KEY, replace(WITH_KEY, preview_header="x-p"), ["edit models/iris", "use secrets/key for models/iris"]),
        (WITH_KEY, replace(WITH_KEY, split={"green": 10_000}), ["switch models/iris"]),
        (WITH_KEY, None, ["edit models/iris"]),
        # Two needs: as it was, and as it will be.
        (IRIS, replace(IRIS, gateways=("staging",)), ["edit models/iris", "edit models/iris"]),
    ],
)
def test_changes_of_a_model(before: Model, after: Model | None, expected: list[str]) -> None:
    assert needs(EDGE, STAGING, KEY, before, iris=after) == expected


def test_new_objects_gateways_and_secrets() -> None:
    assert needs(EDGE, iris=IRIS) == ["edit models/iris"]
    assert needs(EDGE, edge=replace(EDGE, port=90)) == ["edit gateways/edge"]
    tls = replace(EDGE, tls=GatewayTls("key"))
    assert needs(EDGE, KEY, edge=tls) == ["edit gateways/edge", "use secrets/key for gateways/edge"]
    assert needs(KEY, key=None) == ["change-secret secrets/key"]
    assert needs(key=KEY) == ["change-secret secrets/key"]


def test_a_cut_needs_a_permission_in_addition() -> None:
    assert needs(EDGE, IRIS, iris=None, cut=True) == ["edit models/iris", "cut models/iris"]
    split = replace(IRIS, split={"green": 10_000})
    assert needs(EDGE, IRIS, iris=split, cut=True) == ["switch models/iris", "cut models/iris"]


def test_an_object_that_is_named_alone_needs_a_permission_also_if_it_stays() -> None:
    assert needs(EDGE, IRIS, iris=IRIS, unchanged=True) == ["switch models/iris"]
    assert needs(EDGE, edge=EDGE, unchanged=True) == ["edit gateways/edge"]


def test_the_object_counts_as_it_was_and_as_it_will_be() -> None:
    state = State({"edge": EDGE, "staging": STAGING}, {"iris": IRIS})
    found = [n.target.gateways for n in needs_of(state, {"models/iris": replace(IRIS, gateways=("staging",))})]
    assert found == [("edge",), ("staging",)]


def test_nobody_takes_an_object_by_a_label() -> None:
    state = State({"edge": EDGE}, {"iris": replace(IRIS, labels={"team": "a"})})
    found = list(needs_of(state, {"models/iris": replace(IRIS, labels={"team": "b"})}))
    assert [(n.permission.value, n.target.labels) for n in found] == [("edit", {"team": "a"}), ("edit", {"team": "b"})]
