"""Pages of lists: how many items one response contains, and where the next page starts.

A page token names its list and the last item of its page. It stays valid when items are added and removed between two pages.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from google.protobuf.message import Message

from controlplane.errors import invalid

M = TypeVar("M", bound=Message)

DEFAULT_PAGE = 100
MAX_PAGE = 1_000
# A page ends at this size, because gRPC clients accept messages of 4 MiB by default.
PAGE_BYTES = 2 * 1024 * 1024

DEFAULT_ITEMS = 100
MAX_ITEMS = 10_000


def page_size(requested: int) -> int:
    """Return the maximum number of items of a page. Errors: INVALID_ARGUMENT when negative."""
    return _bounded(requested, "page_size", DEFAULT_PAGE, MAX_PAGE)


def max_items(requested: int, field: str) -> int:
    """Return the maximum number of items of a list without pages. Errors: INVALID_ARGUMENT at `field` when negative."""
    return _bounded(requested, field, DEFAULT_ITEMS, MAX_ITEMS)


def _bounded(requested: int, field: str, default: int, maximum: int) -> int:
    if requested < 0:
        raise invalid(field, f"{requested} is negative")
    return min(requested or default, maximum)


def write_token(listing: str, last: str) -> str:
    """Return the token of the page after the item `last` of a list."""
    return base64.urlsafe_b64encode(f"{listing}\0{last}".encode()).decode()


def read_token(listing: str, token: str) -> str:
    """Return the last item of the page before; "" without a token. Errors: INVALID_ARGUMENT."""
    if not token:
        return ""
    try:
        token_listing, _, last = base64.urlsafe_b64decode(token.encode()).decode().partition("\0")
    except (binascii.Error, ValueError):
        token_listing = last = ""
    if token_listing != listing or not last:
        raise invalid("page_token", "is not a next_page_token of this list", "INVALID_PAGE_TOKEN")
    return last


def page(names: Iterable[str], to_proto: Callable[[str], M], request: Any, listing: str) -> tuple[list[M], str]:
    """Return a page of a list that is sorted by name, and the token of the next page ("" on the last)."""
    size = page_size(request.page_size)
    last = read_token(listing, request.page_token)
    remaining = sorted(n for n in names if n > last)
    items: list[M] = []
    room = PAGE_BYTES
    for name in remaining[:size]:
        item = to_proto(name)
        room -= item.ByteSize()
        if items and room < 0:
            break
        items.append(item)
    return items, write_token(listing, remaining[len(items) - 1]) if len(items) < len(remaining) else ""
