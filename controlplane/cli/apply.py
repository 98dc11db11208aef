"""The commands `apply` and `validate`: files of desired state."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from controlplane.cli import envoy, messages, output
from controlplane.cli.client import Client
from controlplane.cli.confirm import Yes
from controlplane.cli.cuts import AllowCut, CutToken, cut_fields
from controlplane.cli.exits import FilesError, Problem
from controlplane.cli.files import Loaded, load
from controlplane.cli.options import (
    DEFAULT_WAIT,
    Api,
    DryRun,
    Files,
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
)
from controlplane.cli.output import Format, line
from controlplane.cli.prune import Prune, add_deletions, confirm_deletions
from controlplane.cli.receipt import finish, finish_dry_run
from controlplane.cli.wording import plural
from controlplane.domain import Gateway, Model
from controlplane.domain.collections import COLLECTIONS
from controlplane.errors import Error, Violation
from controlplane.generated.turnout.v1.revision_service_pb2 import ApplyRequest, ApplyResponse, Manifest


def apply(
    ctx: typer.Context,
    files: Files,
    dry_run: DryRun = False,
    prune: Prune = False,
    yes: Yes = False,
    force: Annotated[
        bool, typer.Option("--force", help="Apply it even if it moves traffic, or an etag in it is old.")
    ] = False,
    allow_cut: AllowCut = False,
    cut_token: CutToken = "",
    no_probe: NoProbe = False,
    reason: Reason = "",
    wait: Wait = False,
    timeout: Timeout = DEFAULT_WAIT,
    require: Require = Requirement.KNOWN,
    validate_with_envoy: Annotated[
        bool, typer.Option("--validate-with-envoy", help="First check the result with the Envoy that is installed here.")
    ] = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Create and update objects from files: one revision, all or nothing.

    Objects that no file names stay as they are. With --prune they are deleted, if they are of a kind that the files
    contain; the command lists them and asks for confirmation. A dry run exits with 1 if anything would change. If a file
    leaves out a model's split, the live split stays, and a new model sends all traffic to its first version. A split in a
    file that differs from the live one moves traffic: that needs --force, or the model's etag in the file. A change by
    which connected nodes lose something that they serve needs --allow-cut, whatever else is given; a dry run shows what
    they would lose.

    \b
    turnout apply -f models.yaml
    turnout apply -f state/ -f gateway.yaml --prune --dry-run
    turnout get all -o yaml | sed 's/:8001/:8002/' | turnout apply -f - --wait

    JSON: ApplyResponse. With --wait also `progress` (RevisionProgress) and `disconnectedNodes` (list of Node). With
    --dry-run also `dryRun` and `needsForce`.
    """
    loaded = load(files)
    client = connect(ctx, api)
    if validate_with_envoy:
        _ask_envoy(client, loaded)
    request = ApplyRequest(
        manifest=loaded.manifest, force=force, reason=reason, no_probe=no_probe, **cut_fields(allow_cut, cut_token)
    )
    request.validate_only = dry_run
    if prune:
        add_deletions(client, request)
    if dry_run:
        _dry_run(client, loaded, request, form)
        return
    if request.delete_names and not yes:
        request.validate_only = True
        confirm_deletions(_apply(client, loaded, request), request)
        request.validate_only = False
    request.request_id = request_id()
    answer = _apply(client, loaded, request)
    finish(client, answer, form, changed=answer.changed, timeout=timeout if wait else None, require=require)


def validate(
    ctx: typer.Context,
    files: Files,
    offline: Annotated[
        bool, typer.Option("--offline", help="Check the files alone, without a server and what is live.")
    ] = False,
    validate_with_envoy: Annotated[
        bool, typer.Option("--with-envoy", help="Also check the result with the Envoy that is installed here.")
    ] = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Check files without changing anything.

    The server checks them against what is live, as `apply --dry-run` does. With --offline they are checked as if nothing else
    existed: the format, every field, and whether the objects fit together.

    \b
    turnout validate -f models.yaml
    turnout validate -f models/ --offline

    JSON: ApplyResponse of a dry run; with --offline, Manifest with the names of the objects.
    """
    loaded = load(files)
    count = _count(loaded.manifest)
    if offline:
        # Only this branch uses the server's own code: its conversion and its checks, without a server.
        from controlplane.cli.offline import check

        try:
            check(loaded.manifest)
        except Error as error:
            raise loaded.located(error) from None
        _print_valid(
            loaded.manifest,
            f"Valid: {count}. Not checked: whether it fits what is live.",
            messages.desired(_names_only(loaded.manifest), form),
            form,
        )
        return
    client = connect(ctx, api)
    answer = _apply(client, loaded, ApplyRequest(manifest=loaded.manifest, force=True, validate_only=True, no_probe=True))
    if validate_with_envoy:
        _ask_envoy(client, loaded)
    _print_valid(loaded.manifest, f"Valid: {count}.", messages.report(answer, form), form)


def _count(manifest: Manifest) -> str:
    """Return `1 gateway, 2 models`. Gateways and models are counted even if there are none."""
    parts = []
    for row in COLLECTIONS:
        count = len(getattr(manifest, row.name))
        if count or row.noun in (Gateway, Model):
            parts.append(f"{count:,} {row.singular if count == 1 else row.name}")
    return ", ".join(parts)


def _names_only(manifest: Manifest) -> Manifest:
    """Return the same objects with nothing but their resource names, so that no private key is printed."""
    names = Manifest()
    for row in COLLECTIONS:
        for obj in getattr(manifest, row.name):
            getattr(names, row.name).add(name=resource(row.name, obj.name))
    return names


def _print_valid(manifest: Manifest, text: str, value: dict[str, Any], form: Format) -> None:
    if form is Format.NAME:
        for name in messages.object_names(manifest):
            output.raw(name)
    elif form is not Format.TABLE:
        messages.print_data(value, form)
    else:
        line(text)


def _apply(client: Client, loaded: Loaded, request: ApplyRequest) -> ApplyResponse:
    try:
        return client.call(client.revisions.Apply, request)
    except Error as error:
        raise _located(loaded, error) from None


def _located(loaded: Loaded, error: Error) -> Error:
    """Return the error with the lines of the files. The API's advice about etags does not fit files, so replace it."""
    if error.reason == "CUTS_TRAFFIC":
        return error
    if error.reason in ("STALE_ETAG", "OTHER_HISTORY"):
        return _outdated(loaded, error)
    if error.reason == "MOVES_TRAFFIC":
        violations = tuple(Violation(v.field, _moved_split(loaded, v.field)) for v in error.violations)
        error = Error(error.code, error.reason, error.message, violations=violations, metadata=error.metadata)
    return loaded.located(error)


def _outdated(loaded: Loaded, error: Error) -> Error:
    """Return the error of objects that changed since a file with their etags was written."""
    names = [name for name in loaded.paths if re.search(rf"(^|\W){re.escape(name)} (has|again)\b", error.message)]
    problem = "has changed since the file was written"
    if error.reason == "OTHER_HISTORY":
        given, live = error.metadata.get("given"), error.metadata.get("live")
        problem = (
            f"is of history {given}, and this control plane has history {live}: its store was restored from a backup or "
            "started anew, or the file is from another control plane"
        )
    problems = [Problem(loaded.place(f"{loaded.paths[name]}.etag"), "etag", f"{name} {problem}") for name in names]
    if not problems:
        return error
    advice = (
        "`turnout diff -f FILE` shows what the file would change. To apply it all the same, repeat with --force, or remove "
        "the `etag:` lines from the file."
    )
    return FilesError(problems, error.code, error.reason, advice)


def _moved_split(loaded: Loaded, field: str) -> str:
    """Return the text for a split that differs from the live one."""
    name = loaded.resource_name(field)
    return f"the split of {name} differs from the live split, so applying it would move traffic"


def _dry_run(client: Client, loaded: Loaded, request: ApplyRequest, form: Format) -> None:
    needs_force = ""
    try:
        answer = client.call(client.revisions.Apply, request)
    except Error as error:
        located = _located(loaded, error)
        if error.reason != "MOVES_TRAFFIC":
            raise located from None
        # A dry run shows the whole effect even if --force is missing.
        needs_force = located.message
        request.force = True
        answer = _apply(client, loaded, request)
    advice = [f"Applying it needs --force:\n{needs_force}"] if needs_force and form is Format.TABLE else []
    more = {messages.key("needs_force", form): bool(needs_force)}
    finish_dry_run(answer, form, changed=answer.changed, more=more, lines_after=advice)


def _ask_envoy(client: Client, loaded: Loaded) -> None:
    request = ApplyRequest(manifest=loaded.manifest, force=True, validate_only=True, no_probe=True, include_bootstraps=True)
    bootstraps = list(_apply(client, loaded, request).bootstraps)
    version = envoy.validate(bootstraps)
    output.notice(f"{version} accepts it ({plural(len(bootstraps), 'set')} of gateways)")
