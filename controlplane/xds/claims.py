"""Claims of a returning client: the resources that it says it holds, as the event `Claimed`.

    variant   the first request of a type has                 names                                     version
    delta     `initial_resource_versions`                     its keys                                  of each resource
    SotW      `version_info`, and no list of resources        those that the index has for the version  of the type
              `version_info`, and names                       the names that it subscribes to           of the type

A SotW client that subscribes to names holds no other resources. Its versions of listeners and clusters are those of a part of
a snapshot, and the index has only versions of whole snapshots. So such a version does not count as unknown. The version of a
client that gets heartbeats does not count as unknown either, because each heartbeat has its own version.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.envoy_types import CLUSTER, FULL_STATE, INDEXED, LISTENER, ROUTES
from controlplane.versions import VersionIndex
from controlplane.xds.events import Claimed
from controlplane.xds.subscription import Subscription

# Types of which an unknown version means that another history served the client.
_CHECKED_TYPES = (LISTENER, CLUSTER, ROUTES)


def delta_claim(sub: Subscription, held_versions: Mapping[str, str], index: VersionIndex) -> Claimed | None:
    """Return the claim of a delta client; None if it holds the newest version of each resource.

    `held_versions` are the versions that it says it holds, by name.
    """
    if sub.type_url not in INDEXED:
        return None
    latest = sub.latest
    others = [v for n, v in held_versions.items() if (resource := latest.get(n)) is None or resource.version != v]
    if not others:
        return None
    unknown = (v for v in others if not index.made(sub.type_url, v)) if sub.type_url in _CHECKED_TYPES else iter(())
    return Claimed(sub.type_url, frozenset(held_versions), next(unknown, ""))


def sotw_claim(
    sub: Subscription, version: str, newest_version: str, index: VersionIndex, heartbeats: bool = False
) -> Claimed | None:
    """Return the claim of a SotW client that says it holds this version of a type; None if it is the newest one."""
    if not version or version == newest_version or sub.type_url not in INDEXED:
        return None
    indexed = index.find(sub.type_url, version)
    of_a_snapshot = sub.wildcard or sub.type_url not in FULL_STATE
    unknown = version if indexed is None and of_a_snapshot and sub.type_url in _CHECKED_TYPES and not heartbeats else ""
    if not sub.wildcard:
        return Claimed(sub.type_url, frozenset(sub.names), unknown)
    if indexed is None:
        return Claimed(sub.type_url, None, unknown, version)
    return Claimed(sub.type_url, frozenset(indexed), unknown)
