"""The command `edit`: change objects in an editor. No edit is lost: after an error it can be corrected, or a file keeps it."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli import complete, messages, names, objects, output
from controlplane.cli.client import Client
from controlplane.cli.cuts import AllowCut, CutToken, cut_fields
from controlplane.cli.files import load
from controlplane.cli.options import (
    DEFAULT_WAIT,
    Api,
    NoProbe,
    Output,
    Reason,
    Require,
    Requirement,
    Timeout,
    Wait,
    connect,
    request_id,
)
from controlplane.cli.output import Format
from controlplane.cli.receipt import finish
from controlplane.domain.collections import BY_NAME, COLLECTIONS
from controlplane.errors import Code, Error, invalid
from controlplane.generated.turnout.v1.revision_service_pb2 import ApplyRequest, ApplyResponse, Manifest

_HEADER = """\
# Edit, save and close. An unchanged or empty file changes nothing. Lines that begin with # are ignored.
# The etags make the edit fail if somebody else changes an object in the meantime.
"""
_MARK = "#! "
# Errors that another edit can correct. The others keep the file.
_CORRECTABLE = (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.NOT_FOUND)
_NOT_CORRECTABLE_REASONS = ("CUTS_TRAFFIC",)


def edit(
    ctx: typer.Context,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="KIND/NAME",
            show_default=False,
            autocompletion=complete.kinds_and_objects,
            help="The objects to edit: models/NAME, gateways/NAME, secrets/NAME; or a kind and names.",
        ),
    ],
    reason: Reason = "",
    wait: Wait = False,
    timeout: Timeout = DEFAULT_WAIT,
    require: Require = Requirement.KNOWN,
    allow_cut: AllowCut = False,
    cut_token: CutToken = "",
    no_probe: NoProbe = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Edit objects as YAML in $VISUAL or $EDITOR, and apply the result as one revision.

    After an error in the file, the editor opens again with the error on top. If you leave it unchanged then, or if the server
    refuses the edit for another reason, the edit stays in a file, and the error names it.

    \b
    turnout edit models/iris
    EDITOR="code --wait" turnout edit models iris wine --reason "longer timeouts"

    JSON: ApplyResponse. With --wait also `progress` (RevisionProgress) and `disconnectedNodes` (list of Node).
    """
    named = names.parse(arguments, names.object_kinds())
    client = connect(ctx, api)
    before = _manifest(client, named)
    request = ApplyRequest(reason=reason, no_probe=no_probe, **cut_fields(allow_cut, cut_token))
    path = _new_file(_HEADER + _yaml(before))
    answer = _edited(client, path, before, request)
    path.unlink(missing_ok=True)
    if answer is None:
        output.notice("The file was left as it was, or empty, so nothing was changed.")
        return
    finish(client, answer, form, changed=answer.changed, timeout=timeout if wait else None, require=require)


def _manifest(client: Client, named: dict[str, list[str]]) -> Manifest:
    """Return the live objects. A kind without names means all objects of it."""
    manifest = Manifest()
    for kind, labels in named.items():
        row = BY_NAME[kind]
        listed = [objects.get(client, row, row.resource_name(label)) for label in labels] or objects.list_all(client, row)
        getattr(manifest, kind).extend(listed)
    if not manifest.ListFields():
        raise Error(Code.NOT_FOUND, "NOT_FOUND", "there is nothing to edit")
    return manifest


def _yaml(manifest: Manifest) -> str:
    listed = {row.name: getattr(manifest, row.name) for row in COLLECTIONS}
    value = {kind: [messages.desired(obj, Format.YAML) for obj in group] for kind, group in listed.items() if group}
    return messages.yaml_text(value)


def _new_file(text: str) -> Path:
    handle, name = tempfile.mkstemp(prefix="turnout-edit-", suffix=".yaml")
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(name)


def _edited(client: Client, path: Path, before: Manifest, request: ApplyRequest) -> ApplyResponse | None:
    """Open the editor until its result is applied. Return None if it was left as it was. Errors: with the name of the file."""
    original = refused_content = _content(path)
    error: Error | None = None
    while True:
        _open_editor(path)
        _remove_error(path)
        content = _content(path)
        if error is None and content in (original, ""):
            return None
        if error is not None and content in (refused_content, ""):
            raise _kept(error, path)
        try:
            return _apply(client, path, before, request)
        except Error as refusal:
            if refusal.code not in _CORRECTABLE or refusal.reason in _NOT_CORRECTABLE_REASONS:
                raise _kept(refusal, path) from None
            refused_content, error = content, refusal
            _write_error(path, refusal)


def _apply(client: Client, path: Path, before: Manifest, request: ApplyRequest) -> ApplyResponse:
    loaded = load([str(path)])
    expected = messages.object_names(before)
    if set(messages.object_names(loaded.manifest)) != set(expected):
        raise invalid("name", f"an edit changes objects and does not rename, add or delete any: {', '.join(expected)}")
    request.manifest.CopyFrom(loaded.manifest)
    request.request_id = request_id()
    try:
        return client.call(client.revisions.Apply, request)
    except Error as error:
        # A cut has lines of its own, which say what is lost and how to allow it.
        raise (error if error.reason in _NOT_CORRECTABLE_REASONS else loaded.located(error)) from None


def _content(path: Path) -> str:
    """Return the file without comments and space at its ends, to see whether it was changed."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(line.rstrip() for line in lines if not line.startswith("#")).strip()


def _write_error(path: Path, error: Error) -> None:
    """Put an error on top of the file, in comments."""
    texts = [text.replace(f"{path}:", "line ") for text in error.message.splitlines()]
    top = "".join(f"{_MARK}{text}\n" for text in ["It was not applied. Lines are counted below this error.", *texts])
    path.write_text(top + path.read_text(encoding="utf-8", errors="replace"), encoding="utf-8")


def _remove_error(path: Path) -> None:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(_MARK)), encoding="utf-8")


def _open_editor(path: Path) -> None:
    command: Sequence[str] = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        code = subprocess.run([*command, str(path)], check=False).returncode
    except OSError as error:
        text = f"the editor {command[0]} can't be started: {(error.strerror or str(error)).lower()}; set EDITOR"
        raise Error(Code.FAILED_PRECONDITION, "NO_EDITOR", text) from None
    if code:
        raise _kept(Error(Code.FAILED_PRECONDITION, "EDITOR_FAILED", f"the editor {command[0]} exited with {code}"), path)


def _kept(error: Error, path: Path) -> Error:
    """Say where the edit is kept, and return the error."""
    output.notice(f"Nothing was changed. Your edit is kept in {path}; to apply it: turnout apply -f {path}")
    return error
