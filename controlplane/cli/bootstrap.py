"""The command `bootstrap`: the file by which an Envoy or a gRPC program finds the control plane."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from controlplane.cli import messages
from controlplane.cli.bootstrap_tls import (
    SdsDir,
    SpiffeSocket,
    TlsCa,
    TlsCert,
    TlsKey,
    TlsServerName,
    files_of,
    tls_of,
    write_sds_files,
)
from controlplane.cli.options import DEFAULT_XDS
from controlplane.cli.output import Format


class ClientKind(StrEnum):
    """The clients that a bootstrap can be for."""

    ENVOY = "envoy"
    GRPC = "grpc"


class Variant(StrEnum):
    """The variants of the xDS protocol."""

    DELTA = "delta"
    SOTW = "sotw"


NodeId = Annotated[str, typer.Argument(metavar="NODE_ID", show_default=False, help="The node's id; each node needs its own.")]
Cluster = Annotated[str, typer.Option("--cluster", help="The node's group. Gateways can select nodes by it.")]
VariantOption = Annotated[
    Variant | None,
    typer.Option("--variant", help="delta: only changed resources are sent; sotw: all of a type. Default: delta."),
]
Xds = Annotated[
    str,
    typer.Option("--xds", metavar="HOST:PORT", envvar="TURNOUT_XDS", help="The control plane's address for Envoys."),
]
AdminPort = Annotated[
    int | None,
    typer.Option("--admin-port", min=0, max=65535, help="Port of Envoy's admin page; 0: any free port. Default: 9901."),
]
Client = Annotated[ClientKind, typer.Option("--client", help="envoy, or grpc for a program that calls xds:///MODEL.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME", help="Give the node only the models that are named like this. Repeatable."),
]
Region = Annotated[
    str, typer.Option("--region", help="The node's region. Endpoints in it are near, and gateways can select nodes by it.")
]
Zone = Annotated[str, typer.Option("--zone", help="The zone in the region. Endpoints in it are nearest.")]
SubZone = Annotated[str, typer.Option("--sub-zone", help="The part of the zone.")]
LoadReports = Annotated[
    bool,
    typer.Option("--load-reports/--no-load-reports", help="Let the node report how many requests it sends to each version."),
]
MaxMemory = Annotated[
    int | None,
    typer.Option(
        "--max-memory",
        metavar="MIB",
        min=0,
        max=1 << 20,
        help="Memory that Envoy should not exceed; under pressure it ends large requests. 0: no bound. Default: 4096.",
        show_default=False,
    ),
]
BootstrapFormat = Annotated[
    Format | None, typer.Option("--output", "-o", help="yaml or json. Default: yaml; json for gRPC.", show_default=False)
]


def bootstrap(
    node_id: NodeId,
    cluster: Cluster = "turnout",
    variant: VariantOption = None,
    xds: Xds = DEFAULT_XDS,
    admin_port: AdminPort = None,
    client: Client = ClientKind.ENVOY,
    models: Models = None,
    region: Region = "",
    zone: Zone = "",
    sub_zone: SubZone = "",
    load_reports: LoadReports = True,
    max_memory: MaxMemory = None,
    tls_cert: TlsCert = "",
    tls_key: TlsKey = "",
    tls_ca: TlsCa = "",
    sds_dir: SdsDir = "",
    spiffe_socket: SpiffeSocket = "",
    tls_server_name: TlsServerName = "",
    form: BootstrapFormat = None,
) -> None:
    r"""Print the bootstrap of a node: the file by which it finds the control plane.

    The node is an Envoy, or with `--client grpc` a program that uses gRPC's own xDS client.

    \b
    turnout bootstrap edge-1 > edge-1.yaml && envoy -c edge-1.yaml
    turnout bootstrap edge-2 --variant sotw --xds turnout.internal:18000 --admin-port 9902
    turnout bootstrap sidecar-7 --model iris --model wine --zone eu-1a
    turnout bootstrap app-1 --client grpc > app-1.json && GRPC_XDS_BOOTSTRAP=app-1.json python app.py

    With mutual TLS, by certificate files that the node watches, or by a SPIRE agent. The node checks the control plane's name:

    \b
    turnout bootstrap edge-1 --tls-cert tls/tls.crt --tls-key tls/tls.key --tls-ca tls/ca.crt --sds-dir sds > edge-1.yaml
    turnout bootstrap edge-1 --spiffe-socket /run/spire/agent.sock --tls-server-name spiffe://example.org/turnout > edge-1.yaml

    JSON: Envoy's Bootstrap message, with the field names of Envoy's protos; with --client grpc, gRPC's bootstrap.
    """
    _check(node_id, form)
    if client is ClientKind.GRPC:
        load_option = None if load_reports else True
        _only_for_envoys(variant=variant, admin_port=admin_port, no_load_reports=load_option, max_memory=max_memory)
    from controlplane.compiler.bootstrap import MAX_MEMORY, grpc_bootstrap, node_bootstrap

    where, grpc = _where(xds, models, region, zone, sub_zone), client is ClientKind.GRPC
    tls = tls_of(where["xds_host"], tls_cert, tls_key, tls_ca, sds_dir, spiffe_socket, tls_server_name, grpc=grpc)
    if grpc:
        messages.print_data(grpc_bootstrap(node_id, cluster, tls=files_of(tls), **where), form or Format.JSON)
        return
    admin_port = 9901 if admin_port is None else admin_port
    more: dict[str, Any] = {
        "variant": (variant or Variant.DELTA).value,
        "max_memory": MAX_MEMORY if max_memory is None else max_memory,
    }
    for_envoy = node_bootstrap(node_id, cluster, admin_port=admin_port, load_reports=load_reports, tls=tls, **more, **where)
    write_sds_files(tls)
    messages.print_data(for_envoy, form or Format.YAML)


def _where(xds: str, models: list[str] | None, region: str, zone: str, sub_zone: str) -> dict[str, Any]:
    """Return the arguments that every bootstrap has. Errors: INVALID_ARGUMENT."""
    from controlplane.compiler.audience import MODELS
    from controlplane.config import Address
    from controlplane.domain import Locality

    address = Address.parse(xds, "--xds")
    metadata = {MODELS: models} if models else None
    locality = Locality(region, zone, sub_zone)
    return {"xds_host": address.host, "xds_port": address.port, "metadata": metadata, "locality": locality}


def _check(node_id: str, form: Format | None) -> None:
    if form not in (None, Format.YAML, Format.JSON):
        raise typer.BadParameter("a bootstrap is yaml or json", param_hint="--output")
    if not node_id:
        raise typer.BadParameter("is empty: a node needs its own id", param_hint="NODE_ID")


def _only_for_envoys(**options: object) -> None:
    for name, value in options.items():
        if value is not None:
            hint = f"--{name.replace('_', '-')}"
            raise typer.BadParameter("works only for Envoys, not with --client grpc", param_hint=hint)
