"""Metadata of clusters and routes that says who answers a request, and Envoy's commands that read it.

A cluster's metadata has the model and the version that was chosen. They never change, so a switch costs nothing. Endpoints of
fallbacks have their version in metadata of their own, because Envoy shows only the metadata of the cluster that the route
names. The revision in which a model last changed is in its RouteConfiguration, which a switch changes anyway, and only where a
gateway shows it.
"""

from __future__ import annotations

from typing import Any

from controlplane.domain import Gateway

NAMESPACE = "turnout"

MODEL = f"%METADATA(CLUSTER:{NAMESPACE}:model)%"
VERSION = f"%METADATA(CLUSTER:{NAMESPACE}:version)%"
# The fallback that answered in place of the version; nothing, or null in a log, if the version itself did.
FALLBACK = f"%UPSTREAM_METADATA({NAMESPACE}:fallback)%"
# The same as the end of a cluster's name: `/fallback/blue`.
SUFFIX = f"%UPSTREAM_METADATA({NAMESPACE}:suffix)%"
REVISION = f"%METADATA(VIRTUAL_HOST:{NAMESPACE}:revision)%"


def shows_revision(gateway: Gateway) -> bool:
    """Return True if a gateway shows the revision in which a model last changed."""
    return bool(gateway.answered_by_header) or gateway.access_log is not None


def set_version(metadata: Any, model: str, version: str) -> None:
    """Set the model and the version in the metadata of a cluster."""
    fields = metadata.filter_metadata[NAMESPACE]
    fields["model"], fields["version"] = model, version


def set_fallback(metadata: Any, version: str) -> None:
    """Set the version in the metadata of an endpoint that answers as a fallback."""
    fields = metadata.filter_metadata[NAMESPACE]
    fields["fallback"], fields["suffix"] = version, f"/fallback/{version}"


def set_revision(metadata: Any, revision: int) -> None:
    """Set the revision in the metadata of a virtual host."""
    metadata.filter_metadata[NAMESPACE]["revision"] = revision
