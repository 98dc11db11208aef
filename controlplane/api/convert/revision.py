"""Conversion of revisions, their changes and their impact to messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from controlplane.api.convert.names import timestamp
from controlplane.api.convert.node import node_name
from controlplane.compiler.impact import Impact
from controlplane.domain import Model, Object
from controlplane.domain.collections import resource_name
from controlplane.domain.cuts import Loss, LossKind, cut_token
from controlplane.domain.describe import lines
from controlplane.domain.revision import Action, Revision
from controlplane.envoy_types import short_name
from controlplane.generated.turnout.v1 import revision_pb2

_ACTIONS = {
    Action.CREATE: revision_pb2.ACTION_CREATE,
    Action.UPDATE: revision_pb2.ACTION_UPDATE,
    Action.DELETE: revision_pb2.ACTION_DELETE,
    Action.APPLY: revision_pb2.ACTION_APPLY,
    Action.SWITCH: revision_pb2.ACTION_SWITCH,
    Action.REVERT: revision_pb2.ACTION_REVERT,
    Action.UNDO: revision_pb2.ACTION_UNDO,
    Action.REVERT_REVISION: revision_pb2.ACTION_REVERT_REVISION,
}

_LOSSES = {
    LossKind.UNKNOWN: revision_pb2.LOSS_KIND_UNKNOWN,
    LossKind.LISTENER: revision_pb2.LOSS_KIND_LISTENER,
    LossKind.ACCESS: revision_pb2.LOSS_KIND_ACCESS,
    LossKind.MODEL: revision_pb2.LOSS_KIND_MODEL,
    LossKind.ENDPOINTS: revision_pb2.LOSS_KIND_ENDPOINTS,
}

# Losses, and models and nodes of a loss, that a message lists.
_LISTED = 100


def revision_to_proto(revision: Revision, *, changes: bool = True) -> revision_pb2.Revision:
    """Return the message of a revision, or without `changes` only the facts about it."""
    draft = revision.draft
    return revision_pb2.Revision(
        name=f"revisions/{revision.number}",
        number=revision.number,
        create_time=timestamp(draft.time),
        author=draft.author,
        reason=draft.reason,
        action=_ACTIONS[draft.action],
        changes=changes_to_proto(revision.changes) if changes else (),
        reverted_to=draft.target if draft.action is Action.REVERT else 0,
        undone_revision=draft.target if draft.action in (Action.UNDO, Action.REVERT_REVISION) else 0,
        etag=revision.etag,
    )


def changes_to_proto(changes: Mapping[str, tuple[Object | None, Object | None]]) -> list[revision_pb2.Change]:
    """Return a message for each changed object, sorted by name. `changes` are (old, new) by resource name."""
    return [
        revision_pb2.Change(name=name, kind=_kind(old, new), lines=lines(old, new))
        for name, (old, new) in sorted(changes.items())
    ]


def _kind(old: Object | None, new: Object | None) -> revision_pb2.ChangeKind.ValueType:
    if old is None:
        return revision_pb2.CHANGE_KIND_CREATED
    return revision_pb2.CHANGE_KIND_DELETED if new is None else revision_pb2.CHANGE_KIND_UPDATED


def impact_to_proto(impact: Impact) -> revision_pb2.Impact:
    """Return the message of an impact."""
    return revision_pb2.Impact(
        types=[
            revision_pb2.TypeImpact(type=short_name(type_url), changed=changed, removed=removed)
            for type_url, (changed, removed) in impact.types.items()
        ],
        nodes=impact.nodes,
        bytes_per_node=impact.bytes_per_node,
        warnings=impact.warnings,
        losses=[_loss_to_proto(loss, nodes) for loss, nodes in islice(impact.losses.items(), _LISTED)],
        loss_count=len(impact.losses),
        cut_token=cut_token(impact.losses),
    )


def _loss_to_proto(loss: Loss, nodes: Sequence[str]) -> revision_pb2.Loss:
    return revision_pb2.Loss(
        kind=_LOSSES[loss.kind],
        text=loss.text(nodes),
        address=loss.address,
        models=[resource_name(Model, label) for label in loss.models[:_LISTED]],
        model_count=len(loss.models),
        nodes=[node_name(node) for node in nodes[:_LISTED]],
        node_count=len(nodes),
    )
