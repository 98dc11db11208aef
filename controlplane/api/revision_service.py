"""Revisions over gRPC: making them of many objects, reading them, going back, and following them."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from controlplane.aio.latest import Latest
from controlplane.api.convert import (
    CONVERTERS,
    label,
)
from controlplane.api.progress import revision_progress
from controlplane.api.request import (
    PAGE_BYTES,
    Clock,
    changes_to_proto,
    draft,
    impact_to_proto,
    named,
    page_size,
    read_token,
    renamed,
    revision_to_proto,
    shown,
    told,
    write_token,
)
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.domain import Model, Object, pem, switch
from controlplane.domain.collections import BY_NAME, BY_NOUN, COLLECTIONS, alternatives, parse_name
from controlplane.domain.etag import check_etag
from controlplane.domain.revision import Action, Head
from controlplane.domain.state import Changes
from controlplane.errors import Collector, invalid, not_found
from controlplane.fleet import Fleet
from controlplane.generated.turnout.v1 import revision_pb2, revision_service_pb2_grpc
from controlplane.generated.turnout.v1 import revision_service_pb2 as pb
from controlplane.snapshot import Audience, Client, Snapshot
from controlplane.store import Store
from controlplane.writer import Writer

# Revisions that are read at once for a page; each may hold thousands of objects.
_CHUNK = 50

MAX_NODES = 10_000

_NAME = re.compile(r"(?:revisions/)?(0|[1-9][0-9]{0,17}|latest)")


class RevisionService(revision_service_pb2_grpc.RevisionServiceServicer):
    """Makes revisions of several objects at once, and reads the history."""

    def __init__(self, writer: Writer, store: Store, changed: Latest[Fleet | None], clock: Clock = time.time) -> None:
        """`changed` is the fleet, for those who follow a revision."""
        self._writer = writer
        self._store = store
        self._changed = changed
        self._clock = clock

    async def Apply(self, request: pb.ApplyRequest, context: Any) -> pb.ApplyResponse:
        if request.include_bootstraps and not request.validate_only:
            raise invalid("include_bootstraps", "goes with validate_only")
        fields: dict[str, str] = {}

        def change(head: Head) -> Changes:
            return applied(head, request, fields)

        with named(fields):
            outcome = await self._writer.write(
                change, draft(request, context, Action.APPLY), validate_only=request.validate_only
            )
        bootstraps: list[str] = []
        if request.include_bootstraps:
            bootstraps = await asyncio.to_thread(_bootstraps, outcome.snapshots, pem.stand_in(self._clock()))
        return pb.ApplyResponse(
            revision=await shown(outcome),
            changed=outcome.changed,
            impact=impact_to_proto(outcome.impact),
            bootstraps=bootstraps,
        )

    async def GetRevision(self, request: pb.GetRevisionRequest, context: Any) -> pb.GetRevisionResponse:
        number = self._number(request.name, "name", latest=True)
        revision = await self._store.revision(number)
        response = pb.GetRevisionResponse(revision=await told(revision_to_proto, revision, len(revision.changes)))
        if request.include_manifest:
            head = await self._store.at(number)
            response.manifest.CopyFrom(await told(manifest_of, head, len(head.meta)))
        return response

    async def ListRevisions(self, request: pb.ListRevisionsRequest, context: Any) -> pb.ListRevisionsResponse:
        name = request.object_name
        if name and name.partition("/")[0] not in BY_NAME:
            raise invalid("object_name", f"'{name[:80]}' is not the name of a {alternatives()}, like models/NAME")
        size = page_size(request.page_size)
        listing = f"revisions {name}"
        after = read_token(listing, request.page_token)
        before = int(after) if after.isdecimal() else self._store.head.value.number + 1
        revisions: list[revision_pb2.Revision] = []
        room = PAGE_BYTES
        while True:
            # One more than fits tells whether there is a next page.
            asked = min(_CHUNK, size - len(revisions) + 1)
            found = await self._store.revisions(before, asked, name)
            for revision in found:
                proto = await told(revision_to_proto, revision, len(revision.changes))
                room -= proto.ByteSize()
                if len(revisions) == size or (revisions and room < 0):
                    token = write_token(listing, str(revisions[-1].number))
                    return pb.ListRevisionsResponse(revisions=revisions, next_page_token=token)
                revisions.append(proto)
                before = revision.number
            if len(found) < asked:
                return pb.ListRevisionsResponse(revisions=revisions)

    async def DiffRevisions(self, request: pb.DiffRevisionsRequest, context: Any) -> pb.DiffRevisionsResponse:
        old = await self._store.at(self._number(getattr(request, "from"), "from", latest=True))
        new = await self._store.at(self._number(request.to, "to", latest=True))
        changes = {n: (old.state.get(n), o) for n, o in old.state.changes_to(new.state).objects.items()}
        impact = await self._writer.impact(old, new)
        return pb.DiffRevisionsResponse(
            changes=await told(changes_to_proto, changes, len(changes)), impact=impact_to_proto(impact)
        )

    async def RevertTo(self, request: pb.RevertToRequest, context: Any) -> pb.RevertToResponse:
        target = await self._store.at(self._number(request.name, "name"))

        def change(head: Head) -> Changes:
            return switch.restore(head, target.state, request.etag, force=request.force)

        outcome = await self._writer.write(
            change,
            draft(request, context, Action.REVERT, reverted_to=target.number),
            validate_only=request.validate_only,
        )
        return pb.RevertToResponse(
            revision=await shown(outcome),
            impact=impact_to_proto(outcome.impact),
        )

    async def WatchRevision(self, request: pb.WatchRevisionRequest, context: Any) -> AsyncIterator[pb.WatchRevisionResponse]:
        if request.max_nodes < 0:
            raise invalid("max_nodes", f"{request.max_nodes} is negative")
        revision = await self._store.revision(self._number(request.name, "name", latest=True))
        most = min(request.max_nodes or 100, MAX_NODES)
        async for progress in revision_progress(revision_to_proto(revision), most, self._changed):
            yield pb.WatchRevisionResponse(progress=progress)

    def _number(self, name: str, field: str, latest: bool = False) -> int:
        """The number of a revision's name; that it exists is the store's to say. Errors: INVALID_ARGUMENT."""
        if not name:
            raise invalid(field, "is required: revisions/NUMBER")
        match = _NAME.fullmatch(name)
        if not match or (match[1] == "latest" and not latest):
            more = " or revisions/latest" if latest else ""
            raise invalid(field, f"'{name[:80]}' is not the name of a revision: revisions/NUMBER{more}")
        if match[1] == "latest":
            number = self._store.head.value.number
            if not number:
                raise not_found("revisions/latest", "there is no revision yet")
            return number
        return int(match[1])


def applied(head: Head, request: pb.ApplyRequest, fields: dict[str, str]) -> Changes:
    """What an Apply changes. `fields` is told where in the request each object is.

    Errors: all that is wrong with the objects, at once; MOVES_TRAFFIC, STALE_ETAG, GATEWAY_IN_USE.
    """
    c = Collector()
    objects: dict[str, Object | None] = {}
    for row in COLLECTIONS:
        for i, proto in enumerate(getattr(request.manifest, row.name)):
            at = f"manifest.{row.name}[{i}]"
            with c.within(at):
                name = row.resource_name(label(proto.name, row.noun, "name"))
                _claim(name, at, "name", fields, objects)
                check_etag(head, name, proto.etag, force=request.force)
                live = head.state.get(name)
                obj = objects[name] = CONVERTERS[row.noun].from_proto(proto, live)
                if isinstance(obj, Model) and isinstance(live, Model):
                    switch.check_split(live, obj, proto.etag, "split", force=request.force)
    for i, name in enumerate(request.delete_names):
        at = f"delete_names[{i}]"
        with c.within(""):
            parsed = parse_name(name)
            if parsed is None:
                raise invalid(at, f"'{name[:80]}' is not the full name of a {alternatives()}, like models/NAME")
            _claim(name, at, at, fields, objects)
            row, short = parsed
            head.state.require(row.noun, short)
            if row.noun is Model:
                with renamed({"etag": at}):
                    switch.delete(head, short, None, force=request.force)
    c.check()
    return Changes(objects)


def manifest_of(head: Head) -> pb.Manifest:
    """Return desired state as a manifest; each list is sorted by name."""
    manifest = pb.Manifest()
    for obj in head.state.objects():
        row = BY_NOUN[type(obj)]
        getattr(manifest, row.name).append(CONVERTERS[row.noun].to_proto(obj, head.meta[obj.resource_name]))
    return manifest


def _claim(name: str, at: str, field: str, fields: dict[str, str], objects: dict[str, Object | None]) -> None:
    """One object is named once in a request: here, or there was an error, at `field`."""
    if name in objects:
        raise invalid(field, f"{name} is named twice, here and at {fields[name]}", "DUPLICATE")
    fields[name] = at
    objects[name] = None


def _bootstraps(snapshots: Mapping[Audience, Snapshot], stand_in: tuple[str, str]) -> list[str]:
    """What Envoys would hold; a gRPC client's resources are no Envoy's."""
    found = sorted((a for a in snapshots if a.gateways and a.client is Client.ENVOY), key=lambda a: a.gateways)
    return [json.dumps(static_bootstrap(snapshots[a], stand_in)) for a in found]
