"""Revert: take back what one revision changed, field by field, and nothing else.

Each field that the revision changed is compared with the live object:

| live field | result |
|---|---|
| as the revision left it | it gets the value from before the revision |
| as it was before the revision | it stays: the change was taken back already |
| another | FAILED_PRECONDITION / CHANGED_SINCE: a later revision changed it |

An object that the revision created or deleted counts as one field. The comparison has the effect of an etag: a caller that
names the revision knows the values that it takes back, and none of them may have changed. So a revert needs no etag.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from controlplane.domain.collections import Object
from controlplane.domain.revision import Head, Revision
from controlplane.domain.state import Changes
from controlplane.errors import Collector, Error, failed_precondition


def revert(head: Head, revision: Revision) -> Changes:
    """Return the changes that take back a revision.

    Errors: FAILED_PRECONDITION / CHANGED_SINCE for every field that a later revision changed, at `OBJECT` or `OBJECT.FIELD`.
    """
    c = Collector()
    objects: dict[str, Object | None] = {}
    for name, (old, new) in revision.changes.items():
        with c.within(""):
            objects[name] = _reverted(head, revision.number, name, old, new)
    c.check()
    return Changes(objects)


def _reverted(head: Head, number: int, name: str, old: Object | None, new: Object | None) -> Object | None:
    """Return one object after the revert; None if it does not exist then."""
    live = head.state.get(name)
    if live in (old, new):
        return old
    if live is None or old is None or new is None:
        raise _changed_since(head, name, name, number)
    values: dict[str, Any] = {}
    c = Collector()
    for field in fields(old):
        before, after, now = (getattr(obj, field.name) for obj in (old, new, live))
        if before in (after, now):
            continue
        with c.within(""):
            if now != after:
                raise _changed_since(head, name, f"{name}.{field.name}", number)
            values[field.name] = before
    c.check()
    try:
        return replace(live, **values)
    except Error as error:
        # For example, the split from before names a version that a later revision removed.
        description = f"without the changes of revision {number} it would be invalid: {error.message}"
        raise failed_precondition("CHANGED_SINCE", name, description, name=name) from None


def _changed_since(head: Head, name: str, field: str, number: int) -> Error:
    meta = head.meta.get(name)
    when = f"revision {meta.revision} changed it last" if meta else "it does not exist any more"
    description = f"a later revision than {number} changed it, too; {when}. Revert that one first, or change the object itself"
    return failed_precondition("CHANGED_SINCE", field, description, name=name)
