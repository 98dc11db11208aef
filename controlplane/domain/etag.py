"""Etags: a caller sends the etag that it read, to show that it knows the newest state of the object that it changes.

The etag of an object is the number of the revision in which the object last changed. The etag of `revisions/latest` is the
number of that revision.
"""

from __future__ import annotations

import re

from controlplane.domain.revision import LATEST, Head
from controlplane.errors import invalid, stale_etag

_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


def live_etag(head: Head, name: str) -> str:
    """Return the etag of an object, or of `revisions/latest`. It is `none` if the object does not exist."""
    if name == LATEST:
        return str(head.number)
    meta = head.meta.get(name)
    return str(meta.revision) if meta else "none"


def check_etag(head: Head, name: str, etag: str, field: str = "etag", *, force: bool = False) -> None:
    """Check the etag that a caller sent for `name`. An empty etag passes: the caller sent none. `force` permits a stale etag.

    Errors: INVALID_ARGUMENT / INVALID_ETAG at `field`; ABORTED / STALE_ETAG.
    """
    if not etag:
        return
    if not _NUMBER.fullmatch(etag):
        raise invalid(field, f"'{etag[:80]}' is not an etag: send the one that was read", "INVALID_ETAG")
    live = live_etag(head, name)
    if etag != live and not force:
        raise stale_etag(name, etag, live)
