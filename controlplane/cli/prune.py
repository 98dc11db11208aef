"""`--prune`: delete the objects that no file names.

Only objects of kinds that the files contain are deleted. So files without secrets delete no secrets, which are often set
with `turnout secret set`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from controlplane.cli import messages, output
from controlplane.cli.client import Client
from controlplane.cli.confirm import confirm
from controlplane.cli.cuts import allow_what_was_shown, loss_lines, needs_permission
from controlplane.cli.wording import first_few, plural
from controlplane.domain.collections import COLLECTIONS
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.revision_service_pb2 import ApplyRequest, ApplyResponse, GetRevisionRequest, Manifest

Prune = Annotated[
    bool,
    typer.Option("--prune", help="Also delete the objects of the files' kinds that no file names, after confirmation."),
]

# Objects that a question lists; the others are counted.
_MAX_LISTED = 50


def everything(client: Client) -> Manifest:
    """Return the newest desired state, all of it of one revision; empty if there is no revision."""
    try:
        request = GetRevisionRequest(name="revisions/latest", include_manifest=True)
        return client.call(client.revisions.GetRevision, request).manifest
    except Error as error:
        if error.code is not Code.NOT_FOUND:
            raise
        return Manifest()


def add_deletions(client: Client, request: ApplyRequest) -> None:
    """Add the deletion of each live object that the manifest does not name, with the object's etag."""
    named = set(messages.object_names(request.manifest))
    live = everything(client)
    for row in COLLECTIONS:
        if getattr(request.manifest, row.name):
            for obj in getattr(live, row.name):
                if obj.name not in named:
                    request.delete_names.append(obj.name)
                    request.delete_etags[obj.name] = obj.etag


def confirm_deletions(preview: ApplyResponse, request: ApplyRequest) -> None:
    """Ask whether to delete the objects. `preview` is the answer of a dry run. A yes allows the cut that was shown."""
    if needs_permission(preview.impact, request):
        return  # The server refuses the request, and says what would be lost.
    names = list(request.delete_names)
    output.notice(f"This deletes {first_few(names, _MAX_LISTED)}")
    for text in loss_lines(preview.impact, dry_run=True):
        output.notice(text)
    confirm(f"Delete {plural(len(names), 'object')}?")
    allow_what_was_shown(preview.impact, request)
