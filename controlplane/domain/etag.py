"""Etags: a caller sends the etag that it read, to show that it knows the newest state of the object that it changes.

An etag is `HISTORY-REVISION`, like `7a0b93c1-26`: the random id of the store's history, and the number of the revision in
which the object last changed. The etag of `revisions/latest` has the number of that revision. The id changes when a store is
started anew or restored from a backup, so the same number in two histories makes two etags.
"""

from __future__ import annotations

import re

from controlplane.domain.revision import LATEST, Head
from controlplane.errors import Error, invalid, other_history, stale_etag

_ETAG = re.compile(r"([0-9a-f]{8})-(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


def live_etag(head: Head, name: str) -> str:
    """Return the etag of an object, or of `revisions/latest`. It is `none` if the object does not exist."""
    if name == LATEST:
        return head.etag
    meta = head.meta.get(name)
    return meta.etag if meta else "none"


def check_etag(head: Head, name: str, etag: str, field: str = "etag", *, force: bool = False) -> None:
    """Check the etag that a caller sent for `name`. An empty etag passes: the caller sent none. `force` permits a stale etag.

    Errors: INVALID_ARGUMENT / INVALID_ETAG at `field`; ABORTED / STALE_ETAG, OTHER_HISTORY.
    """
    if not etag:
        return
    parsed = parse_etag(etag)
    if parsed is None:
        raise _invalid_etag(head, name, etag, field)
    live = live_etag(head, name)
    if etag == live or force:
        return
    if parsed[0] != head.history:
        advice = f"Read {name} again, and retry if the change is still right"
        raise other_history(f"etag {etag}", parsed[0], head.history, advice, name)
    raise stale_etag(name, etag, live)


def parse_etag(etag: str) -> tuple[str, int] | None:
    """Return the history and the number of the revision in an etag; None for another text."""
    match = _ETAG.fullmatch(etag)
    return (match[1], int(match[2])) if match else None


def _invalid_etag(head: Head, name: str, etag: str, field: str) -> Error:
    description = f"'{etag[:80]}' is not an etag: send the one that was read"
    if _NUMBER.fullmatch(etag):
        # Servers and files of earlier versions had plain numbers.
        description = (
            f"'{etag}' is an etag of an earlier version of Turnout. An etag now names the history and the revision, like "
            f"{head.history}-{etag}: read {name} again and send its etag, or send none"
        )
    return invalid(field, description, "INVALID_ETAG")
