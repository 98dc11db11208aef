"""Keys by which the memo remembers requests (`memo.py`)."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

# The protobuf tags before each name (field 3), and before each initial version (field 5; SotW's nonce has it too).
_NAME, _VERSION = b"\x1a", b"\x2a"


def canonical(request: Any) -> tuple[object, ...]:
    """Return a key that is equal for requests with the same meaning. It does not contain the client's identity."""
    error = request.error_detail.message if request.HasField("error_detail") else None
    if hasattr(request, "resource_names"):
        return (request.type_url, request.response_nonce, error, request.version_info, frozenset(request.resource_names))
    return (
        request.type_url,
        request.response_nonce,
        error,
        frozenset(request.resource_names_subscribe),
        tuple(request.resource_names_unsubscribe),
        frozenset(request.initial_resource_versions.items()),
    )


def unordered_key(data: bytes) -> tuple[bytes, frozenset[bytes], bytes, frozenset[bytes]]:
    """Return a key that is equal for two serialised requests which differ only in the order of names.

    Use it only if `has_unordered_key` is true. The key has four parts: the bytes before the names, the names, the bytes after
    them, and the initial versions. Each name and version begins with its length. The function only searches for the tags,
    which costs a fraction of parsing.
    """
    head, *names = data.split(_NAME)
    if not names:
        head, *versions = data.split(_VERSION)
        return head, frozenset(), b"", frozenset(versions)
    last = names.pop()
    end = last[0] + 1 if last else 0
    names.append(last[:end])
    tail, *versions = last[end:].split(_VERSION)
    return head, frozenset(names), tail, frozenset(versions)


def has_unordered_key(request: Any, data: bytes) -> bool:
    """Return whether every request with the unordered key of `data` means the same as `request`, which `data` serialises.

    This is true if no name and no version contains the byte of a tag, so that each part of the key is a whole field.
    Serialised fields can be put together in any order: the result is always a message with the same fields.
    """
    head, names, tail, versions = unordered_key(data)
    if not all(p and p[0] == len(p) - 1 < 128 for p in (*names, *versions)):
        return False
    parse = type(request).FromString
    joined = b"".join((head, *(_NAME + n for n in names), tail, *(_VERSION + v for v in versions)))
    try:
        parse(head), parse(tail)
        meaning = canonical(parse(joined))
    except DecodeError:
        return False
    once = hasattr(request, "resource_names") or len(versions) == len(request.initial_resource_versions)
    return once and meaning == canonical(request)
