"""Conversion of revisions, changes and impact."""

from __future__ import annotations

import pytest

from controlplane.api.convert.revision import changes_to_proto, impact_to_proto, revision_to_proto
from controlplane.compiler.impact import Impact
from controlplane.domain import Gateway
from controlplane.domain.revision import Action, Draft, Revision
from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.generated.turnout.v1 import revision_pb2

OLD, NEW = Gateway("edge", 80), Gateway("edge", 81)


@pytest.mark.parametrize("action", list(Action))
def test_a_revision(action: Action) -> None:
    has_target = action in (Action.REVERT, Action.UNDO, Action.REVERT_REVISION)
    draft = Draft("ann", "why", action, time=100.5, target=3 if has_target else 0)
    message = revision_to_proto(Revision(7, draft, {"gateways/edge": (OLD, NEW)}))
    assert (message.name, message.number, message.author, message.reason) == ("revisions/7", 7, "ann", "why")
    assert revision_pb2.Action.Name(message.action) == f"ACTION_{action.name}"
    assert message.create_time.nanos == 500_000_000
    assert message.reverted_to == (3 if action is Action.REVERT else 0)
    assert message.undone_revision == (3 if has_target and action is not Action.REVERT else 0)
    assert [c.name for c in message.changes] == ["gateways/edge"]


def test_changes_are_sorted_and_have_a_kind() -> None:
    changes = changes_to_proto({"gateways/c": (OLD, NEW), "gateways/b": (None, NEW), "gateways/a": (OLD, None)})
    assert [(c.name, revision_pb2.ChangeKind.Name(c.kind)) for c in changes] == [
        ("gateways/a", "CHANGE_KIND_DELETED"),
        ("gateways/b", "CHANGE_KIND_CREATED"),
        ("gateways/c", "CHANGE_KIND_UPDATED"),
    ]
    assert list(changes[2].lines) == ["port: 80 -> 81"]


def test_an_impact_has_short_names_of_types() -> None:
    message = impact_to_proto(Impact({CLUSTER: (2, 1), ROUTES: (0, 3)}, 5, 1_000, ("careful",)))
    assert [(t.type, t.changed, t.removed) for t in message.types] == [("Cluster", 2, 1), ("RouteConfiguration", 0, 3)]
    assert (message.nodes, message.bytes_per_node, list(message.warnings)) == (5, 1_000, ["careful"])
