"""Manifests as one change, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.manifests import ManifestChange, manifest_of
from controlplane.domain.revision import Action, Draft, Head
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2
from controlplane.generated.turnout.v1 import revision_service_pb2 as pb
from tests.api.api import gateway, model, version
from tests.store.opening import HISTORY, etag

DRAFT = Draft("ann", "why", Action.APPLY, time=5.0)


def request(*objects: Any, **fields: Any) -> pb.ApplyRequest:
    manifest = pb.Manifest(
        gateways=[o for o in objects if isinstance(o, gateway_pb2.Gateway)],
        models=[o for o in objects if isinstance(o, model_pb2.Model)],
    )
    return pb.ApplyRequest(manifest=manifest, **fields)


def applied(head: Head, *objects: Any, **fields: Any) -> Head:
    """Return the head after a manifest is applied."""
    return head.after(ManifestChange(request(*objects, **fields)).changes(head), DRAFT)


def refused(head: Head, *objects: Any, **fields: Any) -> tuple[Code, str, list[str]]:
    with pytest.raises(Error) as caught:
        ManifestChange(request(*objects, **fields)).changes(head)
    return caught.value.code, caught.value.reason, [v.field for v in caught.value.violations]


@pytest.fixture
def head() -> Head:
    """Revision 1: gateway `edge`, models `iris` and `wine`, all traffic on blue."""
    return applied(Head(history=HISTORY), gateway(), model(split={"blue": 10_000}), model("wine", split={"blue": 10_000}))


def test_objects_are_created_replaced_and_deleted(head: Head) -> None:
    change = ManifestChange(request(gateway(port=81), model("rose"), delete_names=["models/wine"], force=True))
    changes = change.changes(head)
    assert {name: obj is None for name, obj in changes.objects.items()} == {
        "gateways/edge": False,
        "models/rose": False,
        "models/wine": True,
    }
    assert change.fields == {
        "gateways/edge": "manifest.gateways[0]",
        "models/rose": "manifest.models[0]",
        "models/wine": "delete_names[0]",
    }


def test_a_change_can_be_tried_again_on_a_newer_head(head: Head) -> None:
    change = ManifestChange(request(gateway(port=81), delete_names=["models/wine"], force=True))
    assert change.changes(head) == change.changes(applied(head, model("rose")))


def test_an_unset_split_is_the_live_one(head: Head) -> None:
    newer = applied(head, model(versions=[*model().versions, version("gold", "10.0.0.9:80")]))
    assert newer.state.models["iris"].split == {"blue": 10_000}
    assert refused(head, model(split={"green": 10_000})) == (
        Code.FAILED_PRECONDITION,
        "MOVES_TRAFFIC",
        ["manifest.models[0].split"],
    )
    assert applied(head, model(split={"green": 10_000}, etag=etag(1))).state.models["iris"].split == {"green": 10_000}
    assert applied(head, model(split={"green": 10_000}), force=True).state.models["iris"].split == {"green": 10_000}


def test_etags_are_compared_unless_forced(head: Head) -> None:
    assert refused(head, gateway(etag=etag(7)))[:2] == (Code.ABORTED, "STALE_ETAG")
    assert applied(head, gateway(port=81, etag=etag(7)), force=True).state.gateways["edge"].port == 81


def test_an_object_can_be_named_once(head: Head) -> None:
    duplicate = (Code.INVALID_ARGUMENT, "DUPLICATE")
    assert refused(head, model(), model("models/iris")) == (*duplicate, ["manifest.models[1].name"])
    assert refused(head, model(), delete_names=["models/iris"], force=True) == (*duplicate, ["delete_names[0]"])


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("iris", Code.INVALID_ARGUMENT, "INVALID_FIELD"),
        ("models/", Code.INVALID_ARGUMENT, "INVALID_FIELD"),
        ("nodes/edge-1", Code.INVALID_ARGUMENT, "INVALID_FIELD"),
        ("models/iris", Code.FAILED_PRECONDITION, "MOVES_TRAFFIC"),
    ],
)
def test_a_refused_deletion_names_its_field(head: Head, name: str, code: Code, reason: str) -> None:
    assert refused(head, delete_names=["gateways/edge", name]) == (code, reason, ["delete_names[1]"])


def test_a_deletion_of_an_object_that_does_not_exist(head: Head) -> None:
    assert refused(head, delete_names=["gateways/none"])[:2] == (Code.NOT_FOUND, "NOT_FOUND")


def test_all_errors_are_reported_together(head: Head) -> None:
    _, _, fields = refused(head, gateway("a", 0), model("b", keys=["?"]), delete_names=["x"])
    assert fields == ["manifest.gateways[0].port", "manifest.models[0].keys[0]", "delete_names[0]"]


@given(st.sets(st.sampled_from(["b", "a", "c", "d"])))
def test_a_manifest_of_a_state_applies_without_a_change(names: set[str]) -> None:
    head = applied(Head(history=HISTORY), gateway(), *(model(name, split={"blue": 10_000}) for name in sorted(names)))
    manifest = manifest_of(head)
    assert [m.name for m in manifest.models] == [f"models/{name}" for name in sorted(names)]
    assert [m.etag for m in manifest.models] == [etag(1)] * len(names)
    objects = ManifestChange(pb.ApplyRequest(manifest=manifest)).changes(head).objects
    assert objects == {o.resource_name: o for o in head.state.objects()}


def test_a_model_with_its_etag_is_deleted_without_force(head: Head) -> None:
    name = "models/iris"
    live = head.meta[name].etag
    stale = f"{live.partition('-')[0]}-99"
    assert refused(head, delete_names=[name]) == (Code.FAILED_PRECONDITION, "MOVES_TRAFFIC", ["delete_names[0]"])
    assert refused(head, delete_names=[name], delete_etags={name: stale})[:2] == (Code.ABORTED, "STALE_ETAG")
    assert name not in applied(head, delete_names=[name], delete_etags={name: live}).meta
    assert name not in applied(head, delete_names=[name], delete_etags={name: stale}, force=True).meta
