"""Keys and prefixes that no request can match, because Envoy changes a request's path and host before it looks at them.

Envoy resolves `.` and `..` in the path, decodes what needs no encoding (RFC 3986, section 6.2.2.2), encodes what a path can't
hold, and takes one dot off the end of the host.
"""

from __future__ import annotations

import re

from controlplane.domain.checks import HOST
from controlplane.domain.gateway import BodyRouting, HeaderRouting, HostRouting, PathRouting, Routing

_ENCODED = re.compile("%([2-7][0-9A-Fa-f])")
_UNRESERVED = re.compile("[A-Za-z0-9._~-]")
# Characters that Envoy encodes, or takes for a slash, in the path of a request.
_ENCODED_BY_ENVOY = re.compile(r'["<>\\^`{|}]')


def key_problem(routing: Routing, key: str) -> str:
    """Return the reason why no request to a gateway can have this key; "" if one can."""
    match routing:
        case PathRouting(segment=segment):
            part = f"there a key is segment {segment} of the path"
            if "/" in key:
                return f"{part}, and a segment has no '/'"
            if key in (".", ".."):
                return f"{part}, and Envoy resolves '{key}'"
        case HostRouting():
            if key.endswith("."):
                return "there a key is the host, without a dot at its end"
            if not HOST.fullmatch(key):
                return "there a key is the host, and this is not the name of a host"
        case HeaderRouting() | BodyRouting():
            pass
    return ""


def prefix_problem(prefix: str) -> str:
    """Return the reason why no path can begin with a rewrite's prefix; "" if one can."""
    if any(_decoded(segment) in (".", "..") for segment in prefix.split("/")):
        return "Envoy resolves the segments '.' and '..' before it rewrites the path"
    if (decoded := _decoded(prefix)) != prefix:
        return f"Envoy decodes what needs no encoding before it rewrites the path: write '{decoded[:80]}'"
    if wrong := _ENCODED_BY_ENVOY.search(prefix):
        encoded = "/" if wrong[0] == "\\" else f"%{ord(wrong[0]):02X}"
        return f"Envoy changes '{wrong[0]}' to '{encoded}' before it rewrites the path: write that"
    return ""


def _decoded(path: str) -> str:
    """Return a path in which letters, digits and `-._~` are not encoded."""

    def decoded(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if _UNRESERVED.fullmatch(character) else match[0]

    return _ENCODED.sub(decoded, path)
