"""Etags: a caller shows with one that it knows the newest state of what it changes.

The etag of an object is the number of the revision in which it last changed. The etag of `revisions/latest` is its number.
"""

from __future__ import annotations

import re

from controlplane.domain.revision import LATEST, Head
from controlplane.errors import invalid, stale_etag

_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


def live_etag(head: Head, name: str) -> str:
    """Return the etag of an object, or of `revisions/latest`; `none` where the object does not exist."""
    if name == LATEST:
        return str(head.number)
    meta = head.meta.get(name)
    return str(meta.revision) if meta else "none"


def check_etag(head: Head, name: str, etag: str, field: str = "etag", *, force: bool = False) -> None:
    """Check the etag that a caller gave for `name`; an empty one is no etag, and passes. `force` permits a stale one.

    Errors: INVALID_ARGUMENT / INVALID_ETAG at `field`; ABORTED / STALE_ETAG.
    """
    if not etag:
        return
    if not _NUMBER.fullmatch(etag):
        raise invalid(field, f"'{etag[:80]}' is not an etag: send the one that was read", "INVALID_ETAG")
    live = live_etag(head, name)
    if etag != live and not force:
        raise stale_etag(name, etag, live)
