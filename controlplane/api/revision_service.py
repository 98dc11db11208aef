"""The gRPC service for revisions: makes them from manifests, lists and restores them, and reports their progress."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from controlplane.aio.latest import Latest
from controlplane.api.convert.revision import changes_to_proto, impact_to_proto, revision_to_proto
from controlplane.api.drafts import draft, write
from controlplane.api.fields import at_objects
from controlplane.api.manifests import ManifestChange, manifest_of
from controlplane.api.outcomes import off_loop, revision_of
from controlplane.api.pages import PAGE_BYTES, max_items, page_size, read_token, write_token
from controlplane.api.probes import impact_with_probes
from controlplane.api.progress import revision_progress
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.domain import pem, switch
from controlplane.domain.collections import BY_NAME, alternatives
from controlplane.domain.etag import parse_etag
from controlplane.domain.revert import revert
from controlplane.domain.revision import LATEST, Action, Head
from controlplane.domain.state import Changes
from controlplane.errors import invalid, not_found, other_history
from controlplane.fleet import Fleet
from controlplane.generated.turnout.v1 import revision_pb2, revision_service_pb2_grpc
from controlplane.generated.turnout.v1 import revision_service_pb2 as pb
from controlplane.snapshot import Audience, Client, Snapshot
from controlplane.store import Store
from controlplane.writer import Outcome, Writer

# Revisions that are read from the store at once; each may contain thousands of objects.
_CHUNK = 50

# The number may be written with its history, like an etag.
_NAME = re.compile(r"(?:revisions/)?(?:([0-9a-f]{8})-(?=[0-9]))?(0|[1-9][0-9]{0,17}|latest)")


class RevisionService(revision_service_pb2_grpc.RevisionServiceServicer):
    """Changes several objects in one revision, reads the history, and restores an earlier state."""

    def __init__(
        self, writer: Writer, store: Store, changed: Latest[Fleet | None], clock: Callable[[], float] = time.time
    ) -> None:
        """Make the service. `changed` holds the fleet; `clock` returns seconds since the epoch."""
        self._writer = writer
        self._store = store
        self._changed = changed
        self._clock = clock

    async def Apply(self, request: pb.ApplyRequest, context: Any) -> pb.ApplyResponse:
        if request.include_bootstraps and not request.validate_only:
            raise invalid("include_bootstraps", "needs validate_only")
        change = ManifestChange(request)
        with at_objects(change.fields):
            outcome = await write(self._writer, change.changes, request, draft(request, context, Action.APPLY))
        bootstraps: list[str] = []
        if request.include_bootstraps:
            bootstraps = await asyncio.to_thread(_bootstraps, outcome.snapshots, pem.placeholder(self._clock()))
        return pb.ApplyResponse(
            revision=await revision_of(outcome),
            changed=outcome.changed,
            impact=await impact_with_probes(self._writer, outcome, request),
            bootstraps=bootstraps,
        )

    async def GetRevision(self, request: pb.GetRevisionRequest, context: Any) -> pb.GetRevisionResponse:
        number = self._number(request.name, "name", latest=True)
        revision = await self._store.revision(number)
        response = pb.GetRevisionResponse(revision=await off_loop(revision_to_proto, revision, len(revision.changes)))
        if request.include_manifest:
            head = await self._store.at(number)
            response.manifest.CopyFrom(await off_loop(manifest_of, head, len(head.meta)))
        return response

    async def ListRevisions(self, request: pb.ListRevisionsRequest, context: Any) -> pb.ListRevisionsResponse:
        name = request.object_name
        if name and name.partition("/")[0] not in BY_NAME:
            raise invalid("object_name", f"'{name[:80]}' is not the name of a {alternatives()}, like models/NAME")
        size = page_size(request.page_size)
        listing = f"revisions {name}"
        last = read_token(listing, request.page_token)
        before = self._from_token(last) if last else self._store.head.value.number + 1
        revisions: list[revision_pb2.Revision] = []
        room = PAGE_BYTES
        while True:
            # One more than the page holds shows that there is a next page.
            count = min(_CHUNK, size - len(revisions) + 1)
            chunk = await self._store.revisions(before, count, name)
            for revision in chunk:
                message = await off_loop(revision_to_proto, revision, len(revision.changes))
                room -= message.ByteSize()
                if len(revisions) == size or (revisions and room < 0):
                    token = write_token(listing, revisions[-1].etag)
                    return pb.ListRevisionsResponse(revisions=revisions, next_page_token=token)
                revisions.append(message)
                before = revision.number
            if len(chunk) < count:
                return pb.ListRevisionsResponse(revisions=revisions)

    async def DiffRevisions(self, request: pb.DiffRevisionsRequest, context: Any) -> pb.DiffRevisionsResponse:
        old = await self._store.at(self._number(getattr(request, "from"), "from", latest=True))
        new = await self._store.at(self._number(request.to, "to", latest=True))
        changes = {name: (old.state.get(name), obj) for name, obj in old.state.changes_to(new.state).objects.items()}
        impact = await self._writer.impact(old, new)
        return pb.DiffRevisionsResponse(
            changes=await off_loop(changes_to_proto, changes, len(changes)), impact=impact_to_proto(impact)
        )

    async def RevertRevision(self, request: pb.RevertRevisionRequest, context: Any) -> pb.RevertRevisionResponse:
        reverted = await self._store.revision(self._number(request.name, "name", latest=True))
        new = draft(request, context, Action.REVERT_REVISION, reverted.number)
        outcome = await write(self._writer, lambda head: revert(head, reverted), request, new)
        return pb.RevertRevisionResponse(
            revision=await revision_of(outcome),
            changed=outcome.changed,
            impact=await impact_with_probes(self._writer, outcome, request),
            reverted=await off_loop(revision_to_proto, reverted, len(reverted.changes)),
        )

    async def RestoreState(self, request: pb.RestoreStateRequest, context: Any) -> pb.RestoreStateResponse:
        outcome = await self._restore(request, context)
        impact = await impact_with_probes(self._writer, outcome, request)
        return pb.RestoreStateResponse(revision=await revision_of(outcome), changed=outcome.changed, impact=impact)

    async def RevertTo(self, request: pb.RevertToRequest, context: Any) -> pb.RevertToResponse:
        outcome = await self._restore(request, context)
        impact = await impact_with_probes(self._writer, outcome, request)
        return pb.RevertToResponse(revision=await revision_of(outcome), impact=impact)

    async def _restore(self, request: pb.RestoreStateRequest | pb.RevertToRequest, context: Any) -> Outcome:
        target = await self._store.at(self._number(request.name, "name"))

        def change(head: Head) -> Changes:
            return switch.restore(head, target.state, request.etag, force=request.force)

        return await write(self._writer, change, request, draft(request, context, Action.REVERT, target.number))

    async def WatchRevision(self, request: pb.WatchRevisionRequest, context: Any) -> AsyncIterator[pb.WatchRevisionResponse]:
        max_nodes = max_items(request.max_nodes, "max_nodes")
        revision = await self._store.revision(self._number(request.name, "name", latest=True))
        connected_only = _connected_only(request.require)
        proto = revision_to_proto(revision)
        async for progress in revision_progress(proto, max_nodes, self._changed, connected_only=connected_only):
            yield pb.WatchRevisionResponse(progress=progress)

    def _number(self, name: str, field: str, latest: bool = False) -> int:
        """Return the number in the name of a revision, which may not exist.

        `latest` permits `revisions/latest`. Errors: INVALID_ARGUMENT at `field`; NOT_FOUND if there is no latest one;
        ABORTED / OTHER_HISTORY.
        """
        if not name:
            raise invalid(field, "is required: revisions/NUMBER")
        match = _NAME.fullmatch(name)
        if not match or (match[2] == "latest" and not latest):
            alternative = f" or {LATEST}" if latest else ""
            raise invalid(field, f"'{name[:80]}' is not the name of a revision: revisions/NUMBER{alternative}")
        if match[1]:
            self._check_history(match[1], name, "Find the revision that is meant in the history of this one")
        if match[2] == "latest":
            number = self._store.head.value.number
            if not number:
                raise not_found(LATEST, "there is no revision yet")
            return number
        return int(match[2])

    def _from_token(self, etag: str) -> int:
        """Return the number of the revision in a page token. Errors: INVALID_ARGUMENT; ABORTED / OTHER_HISTORY."""
        parsed = parse_etag(etag)
        if parsed is None:
            raise invalid("page_token", "is of an earlier version of Turnout: list from the start again", "INVALID_PAGE_TOKEN")
        self._check_history(parsed[0], "the page token", "List from the start again")
        return parsed[1]

    def _check_history(self, history: str, token: str, advice: str) -> None:
        if history != self._store.history_id:
            raise other_history(token, history, self._store.history_id, advice)


def _bootstraps(snapshots: Mapping[Audience, Snapshot], placeholder: tuple[str, str]) -> list[str]:
    """Return a bootstrap in JSON for each set of gateways. `placeholder` replaces certificates that have a private key."""
    audiences = sorted((a for a in snapshots if a.gateways and a.client is Client.ENVOY), key=lambda a: a.gateways)
    return [json.dumps(static_bootstrap(snapshots[a], placeholder)) for a in audiences]


def _connected_only(require: revision_pb2.NodeRequirement.ValueType) -> bool:
    """Return True if only connected nodes must hold the revision. Errors: INVALID_ARGUMENT for an unknown value."""
    if require not in revision_pb2.NodeRequirement.values():
        known, connected = "NODE_REQUIREMENT_KNOWN", "NODE_REQUIREMENT_CONNECTED"
        raise invalid("require", f"{require} is not a requirement: {known} or {connected}")
    return require == revision_pb2.NODE_REQUIREMENT_CONNECTED
