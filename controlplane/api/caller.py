"""The address of a call's client."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

_PEER = re.compile(r"ipv[46]:(.*)", re.DOTALL)


def caller(context: Any) -> str:
    """Return the address of the client as `ip:port`. gRPC writes `ipv4:10.0.0.1:80`, or `ipv6:%5B::1%5D:80`."""
    peer = unquote(context.peer() or "")
    match = _PEER.fullmatch(peer)
    return match[1] if match else peer
