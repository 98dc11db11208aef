"""Scopes of gateways: how a request on an open connection finds its model after the gateway has moved.

A gateway's scope is the first part of the keys by which its requests find their models. The listener of a gateway adds the
scope to each request. When a gateway moves to another address, Envoy opens a listener there. The old listener serves its open
connections for some minutes more, and adds the scope that it was made with. So a gateway keeps its scope when it moves:

| gateway | scope |
|---|---|
| existing | its present scope, wherever it moves |
| new, at the address of a gateway that the same change deletes | the scope of that gateway, which is renamed |
| new | its address |

If another gateway that may be on the same node has that scope already, the gateway gets the first free one of these: its
address, its name, its name with a number. A scope that equals the address is stored as "". An upgrade from a version of
Turnout whose scopes were addresses changes nothing at Envoys.

Known flaw: requests on open connections are lost if a node goes from one gateway to another with a different scope, because
selectors changed; and if a gateway that has moved is applied to a new, empty store, which does not know its scope.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count

from controlplane.domain.collections import Object
from controlplane.domain.gateway import Gateway
from controlplane.domain.state import State


def with_scopes(state: State, objects: Mapping[str, Object | None]) -> Mapping[str, Object | None]:
    """Return changes of `state`, by resource name, with the scope of each changed gateway. None is a deleted object."""
    changed = {name: obj for name, obj in objects.items() if isinstance(obj, Gateway)}
    if not changed:
        return objects
    live = state.gateways
    deleted = [g for g in live.values() if objects.get(g.resource_name, g) is None]
    # Gateways whose scopes are decided.
    settled = [g for g in live.values() if g.resource_name not in objects]
    scoped: dict[str, Object | None] = {}
    # Existing gateways come first, so that no new gateway takes the scope of an existing one.
    for name, gateway in sorted(changed.items(), key=lambda item: (item[1].name not in live, item[0])):
        scope = next(s for s in _candidates(gateway, live.get(gateway.name), deleted) if _is_free(s, gateway, settled))
        scoped[name] = result = replace(gateway, scope_id="" if scope == gateway.host_port else scope)
        settled.append(result)
    return {**objects, **scoped}


def _candidates(gateway: Gateway, live: Gateway | None, deleted: list[Gateway]) -> Iterator[str]:
    """Yield the scopes that a gateway may get, the best first. `live` is the gateway as it is; None if it is new."""
    if live is not None:
        yield live.scope
    else:
        yield from (g.scope for g in deleted if g.host_port == gateway.host_port)
    yield gateway.host_port
    yield gateway.name
    yield from (f"{gateway.name}-{number}" for number in count(2))


def _is_free(scope: str, gateway: Gateway, others: list[Gateway]) -> bool:
    """Return True if no other gateway that may be on the same node has this scope."""
    return not any(other.scope == scope and other.nodes.overlaps(gateway.nodes) for other in others)
