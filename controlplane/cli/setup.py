"""Getting started: serve, bootstrap, demo, schema, version, completion."""

from __future__ import annotations

import platform
from enum import StrEnum
from importlib import import_module, metadata
from typing import Annotated

import typer
from typer import completion as typer_completion

from controlplane.cli import output, schema, settings
from controlplane.cli.client import DEFAULT_API
from controlplane.cli.output import Format, line
from controlplane.errors import Code, Error

DEFAULT_XDS = "127.0.0.1:18000"


def serve(
    data: Annotated[
        str | None, typer.Option("--data", metavar="DIR", help="Where the store is. Default: turnout-data.")
    ] = None,
    api: Annotated[
        str | None, typer.Option("--api", metavar="HOST:PORT", help=f"Listen here for operators. Default: {DEFAULT_API}.")
    ] = None,
    xds: Annotated[
        str | None, typer.Option("--xds", metavar="HOST:PORT", help=f"Listen here for Envoys. Default: {DEFAULT_XDS}.")
    ] = None,
    xds_transport: Annotated[
        str | None, typer.Option("--xds-transport", metavar="NAME", help="What carries xDS: http2 or grpc. Default: http2.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", envvar="TURNOUT_CONFIG", help="Settings in YAML.")
    ] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", help="json or console. Default: console.")] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error. Default: info.")] = None,
    grace: Annotated[
        str | None, typer.Option("--grace", metavar="SECONDS", help="What calls may take to end at a stop. Default: 5.")
    ] = None,
    secret_key_file: Annotated[
        str | None,
        typer.Option("--secret-key-file", metavar="FILE", help="What private keys are sealed with. Default: DIR/secret.key."),
    ] = None,
    max_streams_per_node: Annotated[
        str | None, typer.Option("--max-streams-per-node", metavar="N", help="xDS streams of one node. Default: 256.")
    ] = None,
    max_names_per_stream: Annotated[
        str | None, typer.Option("--max-names-per-stream", metavar="N", help="Names on one xDS stream. Default: 200000.")
    ] = None,
    max_stream_age: Annotated[
        str | None, typer.Option("--max-stream-age", metavar="SECONDS", help="When xDS streams end. Default: 0, never.")
    ] = None,
    resource_ttl: Annotated[
        str | None,
        typer.Option(
            "--resource-ttl", metavar="SECONDS", help="When Envoys drop what no control plane confirms. Default: 0, never."
        ),
    ] = None,
    load_report_interval: Annotated[
        str | None, typer.Option("--load-report-interval", metavar="SECONDS", help="How often Envoys report. Default: 10.")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option("--workers", metavar="N", help="Processes for Envoys; auto: one a core. Default: 0, this one."),
    ] = None,
) -> None:
    """Run the control plane, until SIGTERM or Ctrl-C.

    Each setting is a flag, an environment variable and a line of the settings file. A flag beats the environment, the
    environment beats the file, the file beats the default:

    \b
    --data DIR           TURNOUT_DATA           data: DIR
    --api HOST:PORT      TURNOUT_API            api: HOST:PORT
    --xds HOST:PORT      TURNOUT_XDS            xds: HOST:PORT
    --xds-transport http2    TURNOUT_XDS_TRANSPORT      xds_transport: http2
    --log-format json    TURNOUT_LOG_FORMAT     log_format: json
    --log-level debug    TURNOUT_LOG_LEVEL      log_level: debug
    --grace 5            TURNOUT_GRACE          grace: 5
    --max-stream-age 0   TURNOUT_MAX_STREAM_AGE max_stream_age: 0
    --resource-ttl 0     TURNOUT_RESOURCE_TTL   resource_ttl: 0
    --max-streams-per-node 256     TURNOUT_MAX_STREAMS_PER_NODE  max_streams_per_node: 256
    --max-names-per-stream 200000  TURNOUT_MAX_NAMES_PER_STREAM  max_names_per_stream: 200000
    --workers 0          TURNOUT_WORKERS        workers: 0
    --load-report-interval 10  TURNOUT_LOAD_REPORT_INTERVAL  load_report_interval: 10
    --secret-key-file F  TURNOUT_SECRET_KEY_FILE  secret_key_file: F
    --config FILE        TURNOUT_CONFIG

    \b
    turnout serve --data /var/lib/turnout --xds 0.0.0.0:18000
    """
    flags = {"data": data, "api": api, "xds": xds, "log_format": log_format, "log_level": log_level, "grace": grace}
    flags |= {"max_streams_per_node": max_streams_per_node, "max_names_per_stream": max_names_per_stream}
    flags |= {"max_stream_age": max_stream_age, "secret_key_file": secret_key_file, "workers": workers}
    flags |= {"xds_transport": xds_transport, "resource_ttl": resource_ttl}
    flags |= {"load_report_interval": load_report_interval}
    made = settings.config(flags, config)
    # Only here: the other commands need none of it.
    from controlplane import logs
    from controlplane.aio import event_loop
    from controlplane.app import App

    logs.set_up(made.log_form, made.log_level)
    event_loop.run(App(made).run())


class ClientKind(StrEnum):
    """Who reads the bootstrap."""

    ENVOY = "envoy"
    GRPC = "grpc"


class Variant(StrEnum):
    """How a node's stream speaks."""

    DELTA = "delta"
    SOTW = "sotw"


def bootstrap(
    node_id: Annotated[str, typer.Argument(metavar="NODE_ID", show_default=False, help="The node's name in the fleet.")],
    cluster: Annotated[str, typer.Option("--cluster", help="Which group it is of; gateways may select it.")] = "turnout",
    variant: Annotated[
        Variant | None,
        typer.Option("--variant", help="delta sends what changed; sotw everything of a type. Default: delta."),
    ] = None,
    xds: Annotated[
        str,
        typer.Option("--xds", metavar="HOST:PORT", envvar="TURNOUT_XDS", help="Where the control plane listens for Envoys."),
    ] = DEFAULT_XDS,
    admin_port: Annotated[
        int | None,
        typer.Option("--admin-port", min=0, max=65535, help="Envoy's admin page; 0 is a free port. Default: 9901."),
    ] = None,
    client: Annotated[
        ClientKind, typer.Option("--client", help="envoy, or grpc for programs that call xds:///MODEL.")
    ] = ClientKind.ENVOY,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="Give it this model, and no others that are not named too. Repeatable."),
    ] = None,
    region: Annotated[str, typer.Option("--region", help="Where it is; gateways may select by it.")] = "",
    zone: Annotated[str, typer.Option("--zone", help="Where in the region.")] = "",
    sub_zone: Annotated[str, typer.Option("--sub-zone", help="Where in the zone.")] = "",
    load_reports: Annotated[
        bool, typer.Option("--load-reports/--no-load-reports", help="Tell the control plane what requests are sent where.")
    ] = True,
    form: Annotated[
        Format | None, typer.Option("--output", "-o", help="yaml or json. Default: yaml, json for gRPC.", show_default=False)
    ] = None,
) -> None:
    """Print what a node needs to find the control plane: an Envoy, or a program with gRPC's own xDS client.

    \b
    turnout bootstrap edge-1 > edge-1.yaml && envoy -c edge-1.yaml
    turnout bootstrap edge-2 --variant sotw --xds turnout.internal:18000 --admin-port 9902
    turnout bootstrap sidecar-7 --model iris --model wine --zone eu-1a
    turnout bootstrap app-1 --client grpc > app-1.json && GRPC_XDS_BOOTSTRAP=app-1.json python app.py
    """
    if form not in (None, Format.YAML, Format.JSON):
        raise typer.BadParameter("a bootstrap is yaml or json", param_hint="--output")
    if not node_id:
        raise typer.BadParameter("is empty: a node needs an id of its own", param_hint="NODE_ID")
    if client is ClientKind.GRPC:
        _only_for_envoys({"--variant": variant, "--admin-port": admin_port, "--no-load-reports": not load_reports or None})
    from controlplane.compiler.audience import MODELS
    from controlplane.compiler.bootstrap import grpc_bootstrap, node_bootstrap
    from controlplane.config import Address
    from controlplane.domain import Locality

    address = Address.parse(xds, "--xds")
    metadata = {MODELS: models} if models else None
    locality = Locality(region, zone, sub_zone)
    if client is ClientKind.GRPC:
        made = grpc_bootstrap(
            node_id, cluster, xds_host=address.host, xds_port=address.port, metadata=metadata, locality=locality
        )
        output.data(made, form or Format.JSON)
        return
    made = node_bootstrap(
        node_id,
        cluster,
        xds_host=address.host,
        xds_port=address.port,
        variant=(variant or Variant.DELTA).value,
        admin_port=9901 if admin_port is None else admin_port,
        metadata=metadata,
        locality=locality,
        load_reports=load_reports,
    )
    output.data(made, form or Format.YAML)


def _only_for_envoys(options: dict[str, object]) -> None:
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter("is of an Envoy: gRPC's own client has no such thing", param_hint=name)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running afterwards, and say what to try.")] = False,
    users: Annotated[int, typer.Option("--users", min=1, help="Distinct users who call.")] = 2000,
    envoys: Annotated[int, typer.Option("--envoys", min=1, max=20, help="Real Envoys.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Makes the same model and the same users again.")] = 1,
    form: Annotated[Format, typer.Option("--output", "-o", help="table, or json for the receipt.")] = Format.TABLE,
) -> None:
    """See the main job in a minute: real Envoys, a real model, real load, one switch, one undo.

    Needs what `pip install 'turnout\\[demo]'` brings.

    \b
    turnout demo
    turnout demo --keep --users 5000
    """
    if form not in (Format.TABLE, Format.JSON):
        raise typer.BadParameter("a receipt is a table or json", param_hint="--output")
    if form not in (Format.TABLE, Format.JSON):
        raise typer.BadParameter("the demo's receipt is a table or json", param_hint="--output")
    try:
        run = import_module("controlplane.demo.run")
    except ModuleNotFoundError as error:
        raise Error(
            Code.FAILED_PRECONDITION, "NO_DEMO", f"the demo needs `{error.name}`: pip install 'turnout[demo]'"
        ) from None
    raise typer.Exit(run.main(keep=keep, users=users, envoys=envoys, seed=seed, form=form.value))


def show_schema() -> None:
    """Print the JSON Schema of the files, for editors.

    \b
    turnout schema > turnout.schema.json
    and as a file's first line:  # yaml-language-server: $schema=turnout.schema.json
    """
    output.raw(schema.text())


def version(form: Annotated[Format, typer.Option("--output", "-o", help="How to print it.")] = Format.TABLE) -> None:
    """Print the version."""
    versions = {
        "turnout": metadata.version("turnout"),
        "python": platform.python_version(),
        "grpcio": metadata.version("grpcio"),
    }
    if form in (Format.JSON, Format.YAML):
        output.data(versions, form)
    elif form is Format.NAME:
        output.raw(versions["turnout"])
    else:
        line(f"turnout {versions['turnout']} (Python {versions['python']}, grpcio {versions['grpcio']})")


class Shell(StrEnum):
    """Shells that can be completed in."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(show_default=False)]) -> None:
    """Print what makes the shell complete commands and options.

    \b
    bash:  eval "$(turnout completion bash)"
    zsh:   eval "$(turnout completion zsh)"
    fish:  turnout completion fish | source
    """
    output.raw(
        typer_completion.get_completion_script(  # type: ignore[attr-defined]
            prog_name="turnout", complete_var="_TURNOUT_COMPLETE", shell=shell.value
        )
    )
