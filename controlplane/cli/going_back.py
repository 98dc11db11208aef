"""The commands that go back: `undo` for models, `revert` for one revision, `restore-state` for everything.

Each first asks the server for a dry run. The command asks for confirmation when its user may not know the effect: if somebody
else made the change that is taken back, or if more is affected than the user named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Annotated, TypeVar

import grpc
import typer

from controlplane.cli import complete, output, wording
from controlplane.cli.changes import print_changes
from controlplane.cli.client import Client
from controlplane.cli.confirm import Yes, confirm
from controlplane.cli.cuts import (
    AllowCut,
    CutToken,
    allow_what_was_shown,
    cut_fields,
    loss_lines,
    needs_permission,
)
from controlplane.cli.exits import with_elements
from controlplane.cli.options import (
    DEFAULT_WAIT,
    Api,
    DryRun,
    NoProbe,
    Output,
    Reason,
    Require,
    Requirement,
    Timeout,
    Wait,
    connect,
    request_id,
    resource,
    revision_name,
)
from controlplane.cli.output import Format
from controlplane.cli.receipt import finish
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.model_service_pb2 import (
    GetModelRequest,
    ModelUndo,
    UndoModelsRequest,
    UndoModelsResponse,
    UndoneChange,
)
from controlplane.generated.turnout.v1.revision_pb2 import Action, Change, ChangeKind, Impact, Revision
from controlplane.generated.turnout.v1.revision_service_pb2 import (
    GetRevisionRequest,
    ListRevisionsRequest,
    RestoreStateRequest,
    RestoreStateResponse,
    RevertRevisionRequest,
    RevertRevisionResponse,
)

_Request = TypeVar("_Request", UndoModelsRequest, RevertRevisionRequest, RestoreStateRequest)
_Response = TypeVar("_Response", UndoModelsResponse, RevertRevisionResponse, RestoreStateResponse)

# The newest revisions in which `undo` without a model looks for candidates, and the candidates that it names.
_RECENT, _MAX_CANDIDATES = 50, 5
# Changed objects that a question lists, and other models that it names.
_MAX_CHANGES, _MAX_MODELS = 20, 5

_TO_IS_GONE = (
    "undo takes models now. To restore the state of a whole revision, and so move every model that changed since: "
    "turnout restore-state {to}. To take back what one revision changed: turnout revert N"
)


def undo(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL...", show_default=False, autocompletion=complete.models, help="The models to return."),
    ] = None,
    to: Annotated[str, typer.Option("--to", metavar="N", hidden=True)] = "",
    yes: Yes = False,
    reason: Reason = "",
    wait: Wait = True,
    timeout: Timeout = DEFAULT_WAIT,
    require: Require = Requirement.KNOWN,
    dry_run: DryRun = False,
    allow_cut: AllowCut = False,
    cut_token: CutToken = "",
    no_probe: NoProbe = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Return one or more models to their previous split, in one revision.

    A second `undo` goes one step further back; it never moves forward again. Nothing else changes. Asks for confirmation if
    somebody else made the change, or if that change also moved other models. Nothing changes if somebody else changed the
    model in the meantime.

    \b
    turnout undo iris
    turnout undo iris wine --yes --reason "green is slow"

    JSON: UndoModelsResponse and `changed`. Without --no-wait also `progress` (RevisionProgress) and `disconnectedNodes`
    (list of Node). With --dry-run also `dryRun`.
    """
    if to:
        raise typer.BadParameter(_TO_IS_GONE.format(to=to), param_hint="--to")
    client = connect(ctx, api)
    if not models:
        raise typer.BadParameter(_candidates(client), param_hint="MODEL")
    undos = []
    for name in dict.fromkeys(resource("models", model) for model in models):
        model = client.call(client.models.GetModel, GetModelRequest(name=name)).model
        # The etag makes the call fail if somebody changes the model after this read.
        undos.append(ModelUndo(model=name, etag=model.etag))
    cut = cut_fields(allow_cut, cut_token)
    request = UndoModelsRequest(undos=undos, reason=reason, validate_only=True, no_probe=no_probe, **cut)
    try:
        answer = client.call(client.models.UndoModels, request)
        if not dry_run:
            if not yes:
                _ask_about(answer.impact, request, partial(_ask_to_undo, answer))
            answer = _for_real(client, client.models.UndoModels, request)
    except Error as error:
        error = _with_the_faster(client, error)
        raise with_elements(error, "undos", [one.model for one in undos]) from None
    notes = [f"Undoes {_described(one.revision)}" for one in _distinct(answer.undone)]
    finish(
        client, answer, form, changed=True, timeout=timeout if wait else None, require=require, dry_run=dry_run, notes=notes
    )


def revert(
    ctx: typer.Context,
    revision: Annotated[
        str, typer.Argument(metavar="N", show_default=False, help="The revision whose changes are taken back.")
    ],
    yes: Yes = False,
    reason: Reason = "",
    wait: Wait = True,
    timeout: Timeout = DEFAULT_WAIT,
    require: Require = Requirement.KNOWN,
    dry_run: DryRun = False,
    allow_cut: AllowCut = False,
    cut_token: CutToken = "",
    no_probe: NoProbe = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Take back what one revision changed, and nothing else, as a new revision.

    Changes of other revisions stay. If a later revision changed the same field of the same object, it is an error that names
    both. Asks for confirmation if somebody else made the revision, or if it changed more than one object.

    \b
    turnout revert 12
    turnout revert 12 --dry-run

    JSON: RevertRevisionResponse. Without --no-wait also `progress` (RevisionProgress) and `disconnectedNodes` (list of Node).
    With --dry-run also `changed` and `dryRun`.
    """
    name = revision_name(revision)
    client = connect(ctx, api)
    cut = cut_fields(allow_cut, cut_token)
    request = RevertRevisionRequest(name=name, reason=reason, validate_only=True, no_probe=no_probe, **cut)
    answer = client.call(client.revisions.RevertRevision, request)
    # `latest` must not mean another revision in the second call.
    request.name = answer.reverted.name
    if not dry_run:
        if answer.changed and not yes:
            _ask_about(answer.impact, request, partial(_ask_to_revert, answer))
        answer = _for_real(client, client.revisions.RevertRevision, request)
    notes = [f"Takes back {_described(answer.reverted)}"]
    limit = timeout if wait else None
    finish(client, answer, form, changed=answer.changed, timeout=limit, require=require, dry_run=dry_run, notes=notes)


def restore_state(
    ctx: typer.Context,
    revision: Annotated[str, typer.Argument(metavar="N", show_default=False, help="The revision whose state is restored.")],
    yes: Yes = False,
    reason: Reason = "",
    wait: Wait = True,
    timeout: Timeout = DEFAULT_WAIT,
    require: Require = Requirement.KNOWN,
    dry_run: DryRun = False,
    allow_cut: AllowCut = False,
    cut_token: CutToken = "",
    no_probe: NoProbe = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Restore the whole state of an earlier revision: every gateway, model and secret.

    Takes back what everybody changed since then. It lists those changes and asks for confirmation. `undo` and `revert` go back
    with less.

    \b
    turnout restore-state 12 --dry-run
    turnout restore-state 12 --reason "as it was on Friday"

    JSON: RestoreStateResponse. Without --no-wait also `progress` (RevisionProgress) and `disconnectedNodes` (list of Node).
    With --dry-run also `changed` and `dryRun`.
    """
    name = revision_name(revision, earlier=True)
    client = connect(ctx, api)
    newest = client.call(client.revisions.GetRevision, GetRevisionRequest(name="revisions/latest")).revision
    cut = cut_fields(allow_cut, cut_token)
    request = RestoreStateRequest(name=name, etag=newest.etag, reason=reason, validate_only=True, no_probe=no_probe, **cut)
    answer = client.call(client.revisions.RestoreState, request)
    if not dry_run:
        if answer.changed and not yes:
            _ask_about(answer.impact, request, partial(_ask_to_restore, answer, newest.number))
        answer = _for_real(client, client.revisions.RestoreState, request)
    limit = timeout if wait else None
    finish(client, answer, form, changed=answer.changed, timeout=limit, require=require, dry_run=dry_run)


def _ask_about(impact: Impact, request: _Request, ask: Callable[[], None]) -> None:
    """Ask for confirmation of what a dry run has shown, unless the server will refuse the request without asking."""
    if not needs_permission(impact, request):
        ask()
        allow_what_was_shown(impact, request)


def _for_real(client: Client, rpc: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request) -> _Response:
    """Repeat the call of a dry run, without `validate_only`."""
    request.validate_only, request.request_id = False, request_id()
    return client.call(rpc, request)


def _ask_to_restore(answer: RestoreStateResponse, newest: int) -> None:
    _print_question(answer)
    moved = [wording.clip(name) for name in _moved_models(answer.revision.changes)]
    output.notice(f"This moves the traffic of {', '.join(moved)}." if moved else "This moves no traffic.")
    since = f"{wording.plural(newest - answer.revision.reverted_to, 'revision')} since then"
    confirm(f"Restore the state of revision {answer.revision.reverted_to}, and take back the {since}?")


def _candidates(client: Client) -> str:
    """Return what to write instead of `undo` alone, with the models that were moved last."""
    revisions = client.call(client.revisions.ListRevisions, ListRevisionsRequest(page_size=_RECENT)).revisions
    moved: dict[str, Revision] = {}
    for revision in revisions:
        for name in _moved_models(revision.changes):
            moved.setdefault(name.removeprefix("models/"), revision)
    possible = (name for name in moved if _can_undo(client, name))
    moved = {name: moved[name] for name in islice(possible, _MAX_CANDIDATES)}
    if not moved:
        return "name the model to return to its previous split, like: turnout undo iris"
    commands = [f"turnout undo {name}" for name in moved]
    width = max(map(len, commands))
    lines = [
        f"    {command:<{width}}  {wording.enum_word(Action, one.action, 'ACTION_')} in {_described(one)}"
        for command, one in zip(commands, moved.values(), strict=True)
    ]
    return "\n".join(["name the model to return to its previous split. Moved last:", *lines])


def _with_the_faster(client: Client, error: Error) -> Error:
    """Return the error; if the model has changed since it was read, with the revision that was faster."""
    live, name = error.metadata.get("live", ""), error.metadata.get("name", "")
    if error.reason != "STALE_ETAG" or not wording.revision_of(live).isdigit():
        return error
    faster = f"revisions/{wording.revision_of(live)}"
    try:
        revision = client.call(client.revisions.GetRevision, GetRevisionRequest(name=faster)).revision
    except Error:
        return error
    word = wording.enum_word(Action, revision.action, "ACTION_")
    message = f"{error.message}\n{name} was changed by {_described(revision)} ({word})"
    return Error(error.code, error.reason, message, violations=error.violations, metadata=error.metadata)


def _can_undo(client: Client, model: str) -> bool:
    """Return whether an undo of a model is possible now."""
    undos = [ModelUndo(model=f"models/{model}")]
    try:
        client.call(client.models.UndoModels, UndoModelsRequest(undos=undos, force=True, validate_only=True, no_probe=True))
    except Error as error:
        if error.code is Code.UNAVAILABLE:
            raise
        return False
    return True


def _ask_to_undo(answer: UndoModelsResponse) -> None:
    """Ask for confirmation if the undo cuts traffic, somebody else made a change, or a change also moved other models."""
    undone = answer.undone
    named = {one.model for one in undone}
    others = {one.revision.number: [m for m in one.other_models if m not in named] for one in undone}
    # The author as the server knows it: the credential's, if there is one.
    own = all(one.revision.author == answer.revision.author for one in undone)
    if own and not any(others.values()) and not answer.impact.losses:
        return
    _print_question(answer)
    for one in _distinct(undone):
        output.notice(f"This undoes {_described(one.revision)}.")
        if other_models := others[one.revision.number]:
            names = wording.first_few(other_models, _MAX_MODELS)
            command = f"turnout revert {one.revision.number}"
            output.notice(f"It also moved {names}, which will stay. `{command}` takes all of it back.")
    confirm("Undo it?")


def _ask_to_revert(answer: RevertRevisionResponse) -> None:
    """Ask for confirmation if somebody else made the revision, or the revert changes several objects, or cuts traffic."""
    if answer.reverted.author == answer.revision.author and len(answer.revision.changes) == 1 and not answer.impact.losses:
        return
    _print_question(answer)
    output.notice(f"This takes back {_described(answer.reverted)}.")
    confirm("Take it back?")


def _print_question(answer: UndoModelsResponse | RevertRevisionResponse | RestoreStateResponse) -> None:
    """Print to stderr what a change would do."""
    print_changes(answer.revision.changes, _MAX_CHANGES, console=output.err())
    for text in loss_lines(answer.impact, dry_run=True):
        output.notice(text)


def _described(revision: Revision) -> str:
    """Return a revision with its author, age and reason on one line."""
    reason = f": {revision.reason}" if revision.reason else ""
    return f"revision {revision.number} by {revision.author}, {wording.ago(revision.create_time)} ago{reason}"


def _distinct(undone: Iterable[UndoneChange]) -> list[UndoneChange]:
    """Return one of the undone changes for each revision, in order."""
    return list({one.revision.number: one for one in reversed(list(undone))}.values())[::-1]


def _moved_models(changes: Iterable[Change]) -> list[str]:
    """Return the names of the models that a change deletes, or of which it changes the split."""
    return [
        change.name
        for change in changes
        if change.name.startswith("models/")
        and (
            change.kind == ChangeKind.CHANGE_KIND_DELETED
            or (change.kind == ChangeKind.CHANGE_KIND_UPDATED and any(text.startswith("split:") for text in change.lines))
        )
    ]
