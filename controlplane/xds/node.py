"""The client's identity, on the first request of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from controlplane.domain import Locality
from controlplane.errors import Code, Error
from controlplane.xds.events import Identified

# The keys and values of a node's metadata that are kept, in characters and 8 for a number.
MAX_METADATA_BYTES = 4 * 1024


def identified(node: Any) -> Identified:
    """Return the identity in a `core.v3.Node`. The caller checks that the id is not empty."""
    version = node.user_agent_version
    if node.HasField("user_agent_build_version"):
        v = node.user_agent_build_version.version
        version = f"{v.major_number}.{v.minor_number}.{v.patch}"
    metadata = dict(kept_metadata(node.metadata))
    locality = Locality(node.locality.region, node.locality.zone, node.locality.sub_zone)
    return Identified(node.id, node.cluster, metadata, f"{node.user_agent_name} {version}".strip(), locality)


def kept_metadata(metadata: Any) -> Iterator[tuple[str, object]]:
    """Yield the top-level texts, numbers, booleans and lists of texts in a node's metadata. Nothing else is kept.

    The fleet remembers nodes for a day, so their size is bounded (`MAX_METADATA_BYTES`). A number may be NaN or infinite.
    """
    for key, value in metadata.fields.items():
        match value.WhichOneof("kind"):
            case "string_value" | "number_value" | "bool_value" as kind:
                yield key, getattr(value, kind)
            case "list_value":
                texts = value.list_value.values
                if all(text.WhichOneof("kind") == "string_value" for text in texts):
                    yield key, [text.string_value for text in texts]


def check_metadata(metadata: Any) -> None:
    """Check the size of the metadata that is kept. Errors: RESOURCE_EXHAUSTED, with the key of the largest value."""
    sizes = {key: len(key) + _size(value) for key, value in kept_metadata(metadata)}
    total = sum(sizes.values())
    if total > MAX_METADATA_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        message = (
            f"node.metadata.{largest[:100]}: takes {sizes[largest]} of {total} bytes; the texts, numbers, booleans and lists "
            f"of texts in a node's metadata may take {MAX_METADATA_BYTES} bytes together"
        )
        raise Error(Code.RESOURCE_EXHAUSTED, "METADATA_TOO_LARGE", message)


def _size(value: object) -> int:
    if isinstance(value, list):
        return sum(8 + len(text) for text in value)
    return len(value) if isinstance(value, str) else 8
