"""Objects of desired state as tables: one table for each noun."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import RenderableType

from controlplane.cli import output, secret, wording
from controlplane.domain import Gateway, Model, Secret
from controlplane.domain.collections import Collection
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2


def objects_table(row: Collection, objects: Iterable[Any]) -> RenderableType:
    """Return a table of objects. A noun without columns of its own has two: the name and the revision of the last change."""
    default = ((row.singular.replace("_", " ").upper(), "REVISION"), _name_and_revision)
    columns, cells = _TABLES.get(row.name, default)
    return output.table(columns, map(cells, objects))


def _name_and_revision(obj: Any) -> tuple[str, ...]:
    return obj.name, wording.revision_of(obj.etag)


def _gateway_cells(gateway: gateway_pb2.Gateway) -> tuple[str, ...]:
    match gateway.WhichOneof("routing"):
        case "header":
            routing = f"header {gateway.header.name}"
        case "host":
            routing = "host"
        case "body":
            routing = "model in the body"
        case _:
            routing = f"path segment {gateway.path.segment or 3}"
    selector = gateway.nodes
    selected = [*selector.clusters, *selector.ids, *(f"{k}={v}" for k, v in sorted(selector.metadata.items()))]
    address = f"{gateway.address}:{gateway.port}" + (" (TLS)" if gateway.HasField("tls") else "")
    return gateway.name, address, routing, ", ".join(selected) or "all", wording.revision_of(gateway.etag)


def _model_cells(model: model_pb2.Model) -> tuple[str, ...]:
    versions = ", ".join(f"{v.name} ({len(v.endpoints)})" for v in model.versions)
    gateways = ", ".join(g.removeprefix("gateways/") for g in model.gateways)
    return model.name, wording.split(model.split), versions, gateways, wording.revision_of(model.etag)


# Name of a collection -> its columns, and the function that returns the cells of one object.
_TABLES: Mapping[str, tuple[tuple[str, ...], Callable[[Any], tuple[str, ...]]]] = {
    Gateway.collection: (("GATEWAY", "LISTENS ON", "ROUTES BY", "NODES", "REVISION"), _gateway_cells),
    Model.collection: (("MODEL", "TRAFFIC", "VERSIONS", "GATEWAYS", "REVISION"), _model_cells),
    Secret.collection: (secret.COLUMNS, secret.row),
}
