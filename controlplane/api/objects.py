"""The standard methods of one noun: get, list, create, update and delete objects of desired state.

A service calls them with its messages. `domain/switch.py` decides if a change may move traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controlplane.api.convert import CONVERTERS, label
from controlplane.api.convert.revision import impact_to_proto
from controlplane.api.drafts import draft, write
from controlplane.api.fields import at_objects
from controlplane.api.masks import updated, updated_fields
from controlplane.api.outcomes import meta_of, number_of
from controlplane.api.pages import page
from controlplane.api.probes import impact_with_probes
from controlplane.domain import Object
from controlplane.domain.collections import BY_NOUN
from controlplane.domain.etag import check_etag
from controlplane.domain.revision import Action, Head
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error, invalid, within
from controlplane.store import Store
from controlplane.writer import Outcome, Writer


class Objects:
    """The objects of one noun, for the service of that noun. Requests and responses are messages of turnout.v1."""

    def __init__(self, noun: type[Object], writer: Writer, store: Store) -> None:
        self._noun = noun
        self._row = BY_NOUN[noun]
        self._converter = CONVERTERS[noun]
        self._writer = writer
        self._store = store

    def get(self, name: str) -> Any:
        """Return the message of one object. Errors: INVALID_ARGUMENT, NOT_FOUND."""
        head = self._store.head.value
        obj = head.state.require(self._noun, label(name, self._noun, "name"))
        return self._converter.to_proto(obj, head.meta[obj.resource_name])

    def page(self, request: Any) -> tuple[list[Any], str]:
        """Return a page of messages by name, and the token of the next page. Errors: INVALID_ARGUMENT."""
        head = self._store.head.value
        objects = head.state.of(self._noun)

        def to_proto(name: str) -> Any:
            return self._converter.to_proto(objects[name], head.meta[self._row.resource_name(name)])

        return page(objects, to_proto, request, self._row.name)

    async def create(self, request: Any, context: Any) -> dict[str, Any]:
        """Create the object of a request, and return the fields of the response. Errors: ALREADY_EXISTS; the writer's."""
        field = self._row.singular
        message = getattr(request, field)
        with within(field):
            if message.etag:
                raise invalid("etag", "must be unset: a new object has no etag yet")
            obj = self._converter.from_proto(message, None)
        name = obj.resource_name

        def change(head: Head) -> Changes:
            if head.state.get(name) is not None:
                raise Error(Code.ALREADY_EXISTS, "ALREADY_EXISTS", f"{name} already exists", metadata={"name": name})
            return Changes({name: obj})

        return await self._response(await self.write(change, request, context, Action.CREATE, {name: field}), request, name)

    async def update(
        self, request: Any, context: Any, check: Callable[[Any, Any], None] = lambda live, new: None, *, force: bool = False
    ) -> dict[str, Any]:
        """Update the object of a request, and return the fields of the response.

        `check` gets the live object and the new one, and raises if the new one must not replace it. `force` permits a stale
        etag. Errors: NOT_FOUND, INVALID_ARGUMENT; ABORTED / STALE_ETAG; those of `check` and the writer.
        """
        field = self._row.singular
        message = getattr(request, field)
        short = label(message.name, self._noun, f"{field}.name")
        name = self._row.resource_name(short)

        def change(head: Head) -> Changes:
            live = head.state.require(self._noun, short)
            check_etag(head, name, message.etag, f"{field}.etag", force=force)
            result = updated(self._converter.to_proto(live, None), message, request.update_mask)
            for unchanged in self._converter.kept_if_unset - set(updated_fields(message, request.update_mask)):
                result.ClearField(unchanged)
            with within(field):
                new = self._converter.from_proto(result, live)
            check(live, new)
            return Changes({name: new})

        return await self._response(await self.write(change, request, context, Action.UPDATE, {name: field}), request, name)

    async def delete(self, request: Any, context: Any, change: Callable[[Head, str], Changes] | None = None) -> dict[str, Any]:
        """Delete the object that a request names, and return the fields of the response.

        `change` gets the newest head and the label, and returns the deletion; by default the deletion needs no etag.
        Errors: NOT_FOUND, INVALID_ARGUMENT; ABORTED / STALE_ETAG; those of `change` and the writer.
        """
        short = label(request.name, self._noun, "name")
        name = self._row.resource_name(short)

        def delete_if_unchanged(head: Head, short: str) -> Changes:
            head.state.require(self._noun, short)
            check_etag(head, name, request.etag)
            return Changes({name: None})

        delete = change or delete_if_unchanged
        outcome = await self.write(lambda head: delete(head, short), request, context, Action.DELETE, {name: "name"})
        return {"revision": number_of(outcome, request.validate_only), "impact": impact_to_proto(outcome.impact)}

    async def write(
        self,
        change: Callable[[Head], Changes],
        request: Any,
        context: Any,
        action: Action,
        fields: dict[str, str],
        target: int = 0,
    ) -> Outcome:
        """Make a change, or only validate it, as the request says.

        `fields` are the request's fields by resource name. `target` is that of the draft.
        """
        with at_objects(fields):
            return await write(self._writer, change, request, draft(request, context, action, target))

    def after(self, outcome: Outcome, name: str, validate_only: bool) -> Any:
        """Return the message of an object as it is after a write."""
        return self._converter.to_proto(outcome.head.state.get(name), meta_of(outcome, name, validate_only))

    async def _response(self, outcome: Outcome, request: Any, name: str) -> dict[str, Any]:
        return {
            self._row.singular: self.after(outcome, name, request.validate_only),
            "revision": number_of(outcome, request.validate_only),
            "impact": await impact_with_probes(self._writer, outcome, request),
        }
