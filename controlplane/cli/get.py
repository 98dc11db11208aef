"""The command `get`: objects of desired state, nodes and revisions."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from controlplane.cli import history, listing, messages, nodes, output, secret, wording
from controlplane.cli.client import Client
from controlplane.cli.options import Api, Output, connect, resource
from controlplane.cli.output import Format, line
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway
from controlplane.generated.turnout.v1.gateway_service_pb2 import GetGatewayRequest
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.model_service_pb2 import GetModelRequest
from controlplane.generated.turnout.v1.revision_service_pb2 import GetRevisionRequest, Manifest
from controlplane.generated.turnout.v1.secret_service_pb2 import GetSecretRequest


class Kind(StrEnum):
    """The kinds that `get` shows; the singular means the same."""

    GATEWAYS = "gateways"
    MODELS = "models"
    SECRETS = "secrets"
    NODES = "nodes"
    REVISIONS = "revisions"
    ALL = "all"


def get(
    ctx: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="gateways|models|secrets|nodes|revisions|all", show_default=False, help="The kind of objects to show."
        ),
    ],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]", show_default=False, help="Show only these. Default: all.")
    ] = None,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Show objects.

    `turnout apply` reads the YAML and JSON of gateways, models, secrets and all. Private keys are never shown. If you apply
    a secret without a private key, the stored key is kept.

    \b
    turnout get models
    turnout get model iris -o yaml
    turnout get all -o yaml > state.yaml
    turnout get revision 12 -o json

    JSON: Manifest for gateways, models, secrets and all; ListNodesResponse for nodes; ListRevisionsResponse for revisions.
    """
    chosen = next((k for k in Kind if kind in (k.value, k.value.removesuffix("s"))), None)
    if chosen is None:
        raise typer.BadParameter(f"'{kind}' is none of: {', '.join(Kind)}")
    client = connect(ctx, api)
    match chosen:
        case Kind.NODES:
            nodes.show_nodes(client, names or [], form)
        case Kind.REVISIONS:
            history.show_revisions(client, names or [], form)
        case Kind.ALL:
            _show(_everything(client), form, Kind.GATEWAYS, Kind.MODELS, Kind.SECRETS)
        case _:
            _show(_objects(client, chosen, names or []), form, chosen)


def _objects(client: Client, kind: Kind, names: list[str]) -> Manifest:
    """Return the named objects of a kind, or all of them."""
    full_names = [resource(kind.value, name) for name in names]
    match kind:
        case Kind.GATEWAYS:
            named = [client.call(client.gateways.GetGateway, GetGatewayRequest(name=n)).gateway for n in full_names]
            return Manifest(gateways=named if names else listing.gateways(client))
        case Kind.MODELS:
            models = [client.call(client.models.GetModel, GetModelRequest(name=n)).model for n in full_names]
            return Manifest(models=models if names else listing.models(client))
        case _:
            secrets = [client.call(client.secrets.GetSecret, GetSecretRequest(name=n)).secret for n in full_names]
            return Manifest(secrets=secrets if names else listing.secrets(client))


def _everything(client: Client) -> Manifest:
    """Return desired state as of one revision; empty before the first."""
    try:
        request = GetRevisionRequest(name="revisions/latest", include_manifest=True)
        return client.call(client.revisions.GetRevision, request).manifest
    except Error as error:
        if error.code is not Code.NOT_FOUND:
            raise
        return Manifest()


def _show(manifest: Manifest, form: Format, *kinds: Kind) -> None:
    """Print objects. As data, the list of each requested kind is present even if it is empty."""
    if form is Format.NAME:
        for name in messages.object_names(manifest):
            output.raw(name)
        return
    if form is not Format.TABLE:
        messages.print_data({kind.value: [] for kind in kinds} | messages.desired(manifest, form), form)
        return
    gateway_columns = ("GATEWAY", "LISTENS ON", "ROUTES BY", "NODES", "REVISION")
    model_columns = ("MODEL", "TRAFFIC", "VERSIONS", "GATEWAYS", "REVISION")
    tables = []
    if manifest.gateways:
        tables.append(output.table(gateway_columns, map(_gateway_row, manifest.gateways)))
    if manifest.models:
        tables.append(output.table(model_columns, map(_model_row, manifest.models)))
    if manifest.secrets:
        tables.append(output.table(secret.COLUMNS, map(secret.row, manifest.secrets)))
    for i, table in enumerate(tables):
        if i:
            line()
        output.show(table)
    if not tables:
        output.notice("nothing exists yet; `turnout apply -f FILE` creates objects")


def _gateway_row(gateway: Gateway) -> tuple[str, ...]:
    match gateway.WhichOneof("routing"):
        case "header":
            routing = f"header {gateway.header.name}"
        case "host":
            routing = "host"
        case _:
            routing = f"path segment {gateway.path.segment or 3}"
    selector = gateway.nodes
    selected = [*selector.clusters, *selector.ids, *(f"{k}={v}" for k, v in sorted(selector.metadata.items()))]
    address = f"{gateway.address}:{gateway.port}" + (" (TLS)" if gateway.HasField("tls") else "")
    return gateway.name, address, routing, ", ".join(selected) or "all", gateway.etag


def _model_row(model: Model) -> tuple[str, ...]:
    versions = ", ".join(f"{v.name} ({len(v.endpoints)})" for v in model.versions)
    gateways = ", ".join(g.removeprefix("gateways/") for g in model.gateways)
    return model.name, wording.split(model.split), versions, gateways, model.etag
