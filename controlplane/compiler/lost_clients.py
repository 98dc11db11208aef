"""The clients that a gateway serves before a change and not after it, by its settings for clients."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.domain import BodyRouting, Cors, Gateway, HostRouting
from controlplane.domain.cors import ANY_ORIGIN
from controlplane.errors import abbreviated

# Origins that a sentence names; the others are counted.
_ORIGINS = 3


def lost_clients_of(old: Gateway, new: Gateway) -> Iterator[str]:
    """Yield the clients that a gateway loses, as words for a sentence."""
    if old.health_path and new.health_path != old.health_path:
        yield f"load balancers that check {old.health_path}"
    if old.cors is not None and (origins := _lost_origins(old.cors, new.cors)):
        yield f"web pages of {abbreviated(origins, _ORIGINS)}"
    match old.routing, new.routing:
        case BodyRouting(max_body_bytes=before), BodyRouting(max_body_bytes=after) if after < before:
            yield f"requests with bodies above {after:,} bytes"
    if new.hide_models and not old.hide_models and not isinstance(old.routing, HostRouting):
        yield "clients that list the models first"


def _lost_origins(old: Cors, new: Cors | None) -> list[str]:
    """Return the origins whose pages may do less than before."""
    if new is None or _is_narrower(old, new):
        return list(old.allow_origins)
    if ANY_ORIGIN in new.allow_origins:
        return []
    return [origin for origin in old.allow_origins if origin not in new.allow_origins]


def _is_narrower(old: Cors, new: Cors) -> bool:
    """Return True if a policy allows less to an origin than another. An empty list allows everything."""
    lists = ((old.allow_methods, new.allow_methods), (old.allow_headers, new.allow_headers))
    fewer = any(after and not (before and set(before) <= set(after)) for before, after in lists)
    return fewer or (old.allow_credentials and not new.allow_credentials)
