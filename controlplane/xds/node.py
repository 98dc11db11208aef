"""The client's identity, on the first request of a stream."""

from __future__ import annotations

from typing import Any

from controlplane.domain import Locality
from controlplane.xds.events import Identified


def identified(node: Any) -> Identified:
    """Return the identity in a `core.v3.Node`. The caller checks that the id is not empty."""
    version = node.user_agent_version
    if node.HasField("user_agent_build_version"):
        v = node.user_agent_build_version.version
        version = f"{v.major_number}.{v.minor_number}.{v.patch}"
    metadata = {key: plain(value) for key, value in node.metadata.fields.items()}
    locality = Locality(node.locality.region, node.locality.zone, node.locality.sub_zone)
    return Identified(node.id, node.cluster, metadata, f"{node.user_agent_name} {version}".strip(), locality)


def plain(value: Any) -> object:
    """Return a google.protobuf.Value as a Python value. Unlike in JSON, a number may be NaN or infinite."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return {key: plain(inner) for key, inner in value.struct_value.fields.items()}
        case "list_value":
            return [plain(inner) for inner in value.list_value.values]
        case None | "null_value":
            return None
        case kind:
            scalar: object = getattr(value, kind)
            return scalar
