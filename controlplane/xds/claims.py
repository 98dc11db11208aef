"""Claims of a returning client: the resources that it says it holds, as the event `Claimed`.

    variant   the first request of a type has                 names                                     version
    delta     `initial_resource_versions`                     its keys                                  of each resource
    SotW      `version_info`, and no list of resources        those that the index has for the version  of the type
              `version_info`, and names                       the names that it subscribes to           of the type

A SotW client that subscribes to names holds some of them at most. For listeners and clusters, a version that it was sent then
covers these names only, and the index has versions of whole snapshots. So such a version does not count as unknown. Nor does
the version of a client that gets heartbeats, because each heartbeat has a version of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.envoy_types import CLUSTER, FULL_STATE, INDEXED, LISTENER, ROUTES
from controlplane.versions import VersionIndex
from controlplane.xds.events import Claimed
from controlplane.xds.subscription import Subscription

# Types whose versions can show that a client was served by another history.
_TELLING = (LISTENER, CLUSTER, ROUTES)


def delta_claim(sub: Subscription, known: Mapping[str, str], index: VersionIndex) -> Claimed | None:
    """Return the claim of a delta client that holds these versions by name; None if all of them are the newest ones."""
    if sub.type_url not in INDEXED:
        return None
    latest = sub.latest
    others = [v for n, v in known.items() if (resource := latest.get(n)) is None or resource.version != v]
    if not others:
        return None
    unknown = (v for v in others if not index.made(sub.type_url, v)) if sub.type_url in _TELLING else iter(())
    return Claimed(sub.type_url, frozenset(known), next(unknown, ""))


def sotw_claim(
    sub: Subscription, version: str, newest_version: str, index: VersionIndex, heartbeats: bool = False
) -> Claimed | None:
    """Return the claim of a SotW client that brings this version of a type; None if it is the newest one."""
    if not version or version == newest_version or sub.type_url not in INDEXED:
        return None
    indexed = index.find(sub.type_url, version)
    of_a_snapshot = sub.wildcard or sub.type_url not in FULL_STATE
    unknown = version if indexed is None and of_a_snapshot and sub.type_url in _TELLING and not heartbeats else ""
    if not sub.wildcard:
        return Claimed(sub.type_url, frozenset(sub.names), unknown)
    return Claimed(sub.type_url, None if indexed is None else frozenset(indexed), unknown)
