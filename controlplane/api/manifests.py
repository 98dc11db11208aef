"""Manifests: any number of objects as one change, and desired state as a manifest."""

from __future__ import annotations

from controlplane.api.convert import CONVERTERS, label
from controlplane.api.fields import at_fields
from controlplane.domain import Model, Object, switch
from controlplane.domain.collections import BY_NOUN, COLLECTIONS, alternatives, parse_name
from controlplane.domain.etag import check_etag
from controlplane.domain.revision import Head
from controlplane.domain.state import Changes
from controlplane.errors import Collector, invalid
from controlplane.generated.turnout.v1 import revision_service_pb2 as pb


class ManifestChange:
    """The change that an ApplyRequest asks for.

    `fields` maps the name of each object to its field in the request. It is filled by `changes`, for errors that are about an
    object and not about a request.
    """

    def __init__(self, request: pb.ApplyRequest) -> None:
        self.fields: dict[str, str] = {}
        self._request = request

    def changes(self, head: Head) -> Changes:
        """Return the changed and deleted objects.

        Errors: everything that is wrong with the objects at once: INVALID_ARGUMENT; NOT_FOUND for a deletion;
        ABORTED / STALE_ETAG; FAILED_PRECONDITION / MOVES_TRAFFIC.
        """
        self.fields.clear()
        c = Collector()
        objects: dict[str, Object | None] = {}
        for row in COLLECTIONS:
            for i, message in enumerate(getattr(self._request.manifest, row.name)):
                field = f"manifest.{row.name}[{i}]"
                with c.within(field):
                    name = row.resource_name(label(message.name, row.noun, "name"))
                    self._claim(name, field, "name")
                    check_etag(head, name, message.etag, force=self._request.force)
                    live = head.state.get(name)
                    obj = objects[name] = CONVERTERS[row.noun].from_proto(message, live)
                    if isinstance(obj, Model) and isinstance(live, Model):
                        switch.check_split(live, obj, message.etag, "split", force=self._request.force)
        for i, name in enumerate(self._request.delete_names):
            field = f"delete_names[{i}]"
            with c.within(""):
                self._delete(head, name, field)
                objects[name] = None
        c.check()
        return Changes(objects)

    def _delete(self, head: Head, name: str, field: str) -> None:
        """Check that an object may be deleted."""
        parsed = parse_name(name)
        if parsed is None:
            raise invalid(field, f"'{name[:80]}' is not the full name of a {alternatives()}, like models/NAME")
        self._claim(name, field, field)
        row, short = parsed
        head.state.require(row.noun, short)
        etag = self._request.delete_etags.get(name, "")
        check_etag(head, name, etag, f"delete_etags.{name}", force=self._request.force)
        if row.noun is Model:
            with at_fields({"etag": field}):
                switch.delete(head, short, etag or None, force=self._request.force)

    def _claim(self, name: str, field: str, error_field: str) -> None:
        """Record the field of an object. Errors: INVALID_ARGUMENT / DUPLICATE if the request names the object twice."""
        if name in self.fields:
            raise invalid(error_field, f"{name} is named twice, here and at {self.fields[name]}", "DUPLICATE")
        self.fields[name] = field


def manifest_of(head: Head) -> pb.Manifest:
    """Return desired state as a manifest; each list is sorted by name."""
    manifest = pb.Manifest()
    for obj in head.state.objects():
        row = BY_NOUN[type(obj)]
        getattr(manifest, row.name).append(CONVERTERS[row.noun].to_proto(obj, head.meta[obj.resource_name]))
    return manifest
