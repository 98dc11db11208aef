"""The bytes of the responses that bring a client from one snapshot to another, as `xds/wire.py` serialises them.

A resource is sent within wrappers: the `Any` with its type URL and, with delta, its name and version. For small resources the
wrappers are as large as the content. These are the bytes of the messages, without the frames of gRPC and HTTP/2. The responses
are those of an ADS stream on which every response is ACKed: one for what is new in a type, and one for what is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controlplane.envoy_types import CLUSTER, ENDPOINTS, FULL_STATE
from controlplane.snapshot import Diff, Resource, Resources

# Bytes of a version of a type, and of most nonces.
_VERSION, _NONCE = 32, 4

ByType = Mapping[str, Resources]


def delta_size(new: ByType, differences: Mapping[str, Diff]) -> int:
    """Return the bytes for a delta client. `differences` are those from its snapshot to `new`, by type."""
    size = 0
    for type_url, changed in _sent(new, differences).items():
        removed = differences[type_url].removed
        size += sum(map(_delta_entry, changed)) + sum(_field(len(n.encode())) for n in removed)
        size += _envelope(type_url) * (bool(changed) + bool(removed))
    return size


def sotw_size(old: ByType, new: ByType, differences: Mapping[str, Diff]) -> int:
    """Return the bytes for a SotW client: a type like clusters is sent in full. Arguments as for `delta_size`."""
    size = 0
    for type_url, changed in _sent(new, differences).items():
        removed = differences[type_url].removed
        if type_url in FULL_STATE and (changed or removed):
            everything = sum(map(_any, new[type_url].values())) + _envelope(type_url)
            # The first response keeps the removed resources, because routes may still use them.
            both = changed and removed
            size += everything * (2 if both else 1) + (sum(_any(old[type_url][n]) for n in removed) if both else 0)
        elif changed:
            size += sum(map(_any, changed)) + _envelope(type_url)
    return size


def _sent(new: ByType, differences: Mapping[str, Diff]) -> dict[str, list[Resource]]:
    """Return the resources that are sent, by type: those that changed, and the endpoints of changed clusters (rule 32)."""
    sent = {t: list(difference.changed) for t, difference in differences.items()}
    names = {r.name for r in sent[ENDPOINTS]}
    again = {n for cluster in sent[CLUSTER] for t, n in cluster.refs if t == ENDPOINTS} - names
    sent[ENDPOINTS] += _existing(new[ENDPOINTS], again)
    return sent


def _existing(resources: Resources, names: Iterable[str]) -> list[Resource]:
    return [resources[n] for n in names if n in resources]


def _any(resource: Resource) -> int:
    """Return the bytes of a resource in `DiscoveryResponse.resources`."""
    return _field(_field(len(resource.type_url)) + _field(len(resource.body)))


def _delta_entry(resource: Resource) -> int:
    """Return the bytes of a resource in `DeltaDiscoveryResponse.resources`."""
    return _field(_field(len(resource.name.encode())) + _field(len(resource.version)) + _any(resource))


def _envelope(type_url: str) -> int:
    """Return the bytes of a response without its resources."""
    return _field(len(type_url)) + _field(_VERSION) + _field(_NONCE)


def _field(length: int) -> int:
    """Return the bytes of a field of this length with its tag; an empty one is left out. Its number is below 16."""
    return length and 1 + (length.bit_length() + 6) // 7 + length
