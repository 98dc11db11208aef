"""The policy for moving traffic. It applies to everything that changes desired state: API calls, rollouts, files.

Traffic moves when a model's split changes, when a model is deleted, or when an earlier state is restored. Then the caller
must show with an etag that it knows the newest state, or set `force`:

| etag | force | result |
|---|---|---|
| the live one | any | the change is made |
| another one | no | ABORTED / STALE_ETAG, or OTHER_HISTORY if it is of another history |
| another one | yes | the change is made |
| none | no | FAILED_PRECONDITION / MOVES_TRAFFIC |
| none | yes | the change is made |

Two ways of going back have modules of their own: `undo.py` follows the table, and `revert.py` compares values instead of an
etag. A change that moves no traffic needs no etag, but an etag that the caller sends is always compared. Errors name fields of
the model (`split.green`) or of the change (`model`, `etag`). The caller renames them to the fields of its request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from controlplane.domain.checks import FULL_SHARE
from controlplane.domain.etag import check_etag
from controlplane.domain.model import Model
from controlplane.domain.revision import LATEST, Head
from controlplane.domain.state import Changes, State
from controlplane.errors import Error, Violation, failed_precondition


def to_version(version: str) -> Mapping[str, int]:
    """Return the split that sends all traffic to a version."""
    return {version: FULL_SHARE}


def switch(head: Head, label: str, split: Mapping[str, int], etag: str = "", *, force: bool = False) -> Model:
    """Return the model with another split: version -> basis points.

    Errors: NOT_FOUND at `model`; INVALID_ARGUMENT at `split` or `split.VERSION`; FAILED_PRECONDITION / NO_ENDPOINTS at
    `split.VERSION`; at `etag` as in the table above.
    """
    live = live_model(head, label)
    name = live.resource_name
    for version, share in split.items():
        field = f"split.{version}"
        if share and not live.version(version, field).endpoints:
            description = f"version '{version}' of {name} has no endpoints, so it can't be given a share"
            raise failed_precondition("NO_ENDPOINTS", field, description, name=name)
    check_etag(head, name, etag, force=force)
    if not etag and not force:
        raise moves_traffic(name, "etag", "this moves live traffic")
    return replace(live, split=split)


def check_split(live: Model | None, model: Model, etag: str, field: str, *, force: bool = False) -> None:
    """Check that `model` may replace the live model. The caller has compared `etag` before.

    Errors: FAILED_PRECONDITION / MOVES_TRAFFIC at `field`, if the split differs and there is neither an etag nor `force`.
    """
    if live is not None and model.split != live.split and not etag and not force:
        raise moves_traffic(model.resource_name, field, f"the split of {model.resource_name} differs from the live split")


def delete(head: Head, label: str, etag: str | None = "", *, force: bool = False) -> Changes:
    """Return the deletion of a model. `etag` is None if the request has no field for an etag.

    Errors: NOT_FOUND; at `etag` as in the table above.
    """
    name = head.state.require(Model, label).resource_name
    if etag is None:
        if not force:
            description = f"requests for {name} would be answered 404: set force if that is intended"
            raise failed_precondition("MOVES_TRAFFIC", "etag", description, name=name)
        return Changes({name: None})
    check_etag(head, name, etag, force=force)
    if not etag and not force:
        raise moves_traffic(name, "etag", "its requests would be answered 404")
    return Changes({name: None})


def restore(head: Head, target: State, etag: str = "", *, force: bool = False) -> Changes:
    """Return the changes that lead from the newest state back to `target`. `etag` is the etag of `revisions/latest`.

    Errors: at `etag` as in the table above.
    """
    if not force:
        if not etag:
            raise moves_traffic(LATEST, "etag", "going back moves live traffic")
        check_etag(head, LATEST, etag)
    return head.state.changes_to(target)


def moves_traffic(name: str, field: str, cause: str) -> Error:
    """Return a FAILED_PRECONDITION / MOVES_TRAFFIC at a field: the caller sent neither an etag nor `force`."""
    return failed_precondition(
        "MOVES_TRAFFIC", field, f"{cause}: send the etag of {name} as it was read, or set force", name=name
    )


def moved_models(old: State, new: State) -> list[str]:
    """Return the resource names of the models that were deleted, have another split, or lost a key or a gateway."""
    moved = []
    for model in old.models.values():
        after = new.models.get(model.name)
        if after is model:
            continue
        if (
            after is None
            or after.split != model.split
            or not set(model.route_keys) <= set(after.route_keys)
            or not set(model.gateways) <= set(after.gateways)
        ):
            moved.append(model.resource_name)
    return sorted(moved)


def live_model(head: Head, label: str) -> Model:
    """Return the live model. Errors: NOT_FOUND at `model`."""
    try:
        return head.state.require(Model, label)
    except Error as error:
        violation = Violation("model", error.message)
        raise Error(error.code, error.reason, error.message, violations=(violation,), metadata=error.metadata) from None
