"""The command `serve`: the control plane itself."""

from __future__ import annotations

from typing import Annotated

import typer

from controlplane.cli import settings
from controlplane.cli.client import DEFAULT_API
from controlplane.cli.options import DEFAULT_XDS


def serve(
    data: Annotated[
        str | None, typer.Option("--data", metavar="DIR", help="Folder of the store. Default: turnout-data.")
    ] = None,
    api: Annotated[
        str | None, typer.Option("--api", metavar="HOST:PORT", help=f"Address for operators. Default: {DEFAULT_API}.")
    ] = None,
    xds: Annotated[
        str | None, typer.Option("--xds", metavar="HOST:PORT", help=f"Address for Envoys. Default: {DEFAULT_XDS}.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics", metavar="HOST:PORT", help="Address for Prometheus, on loopback, or off. Default: 127.0.0.1:18090."
        ),
    ] = None,
    xds_transport: Annotated[
        str | None, typer.Option("--xds-transport", metavar="NAME", help="Transport of xDS: http2 or grpc. Default: http2.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", envvar="TURNOUT_CONFIG", help="File with settings in YAML.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option("--log-format", help="Format of log lines: json or console. Default: console.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", help="Least level of log lines: debug, info, warning or error. Default: info.")
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option("--grace", metavar="SECONDS", help="Time that calls get to end when the server stops. Default: 5."),
    ] = None,
    secret_key_file: Annotated[
        str | None,
        typer.Option(
            "--secret-key-file",
            metavar="FILE",
            help="File with the key that encrypts private keys in the store. Default: DIR/secret.key.",
        ),
    ] = None,
    max_streams_per_node: Annotated[
        str | None, typer.Option("--max-streams-per-node", metavar="N", help="Most xDS streams of one node. Default: 256.")
    ] = None,
    max_names_per_stream: Annotated[
        str | None,
        typer.Option(
            "--max-names-per-stream",
            metavar="N",
            help="Most resource names that one xDS stream subscribes to. Default: 200000.",
        ),
    ] = None,
    max_stream_age: Annotated[
        str | None,
        typer.Option(
            "--max-stream-age", metavar="SECONDS", help="Age at which the server ends an xDS stream. Default: 0, never."
        ),
    ] = None,
    resource_ttl: Annotated[
        str | None,
        typer.Option(
            "--resource-ttl",
            metavar="SECONDS",
            help="Time after which Envoys drop resources that no control plane confirms. Default: 0, never.",
        ),
    ] = None,
    load_report_interval: Annotated[
        str | None,
        typer.Option(
            "--load-report-interval", metavar="SECONDS", help="Time between two load reports of an Envoy. Default: 10."
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            "--workers",
            metavar="N",
            help="Processes that serve xDS; auto: one a core. Default: 0, the main process serves it.",
        ),
    ] = None,
) -> None:
    r"""Run the control plane until SIGTERM or Ctrl-C.

    Each setting can be a flag, an environment variable or a line of the settings file. A flag overrides the environment, the
    environment overrides the file, and the file overrides the default.

    \b
    --data DIR                      TURNOUT_DATA                  data: DIR
    --api HOST:PORT                 TURNOUT_API                   api: HOST:PORT
    --xds HOST:PORT                 TURNOUT_XDS                   xds: HOST:PORT
    --metrics HOST:PORT             TURNOUT_METRICS               metrics: HOST:PORT
    --xds-transport http2           TURNOUT_XDS_TRANSPORT         xds_transport: http2
    --log-format json               TURNOUT_LOG_FORMAT            log_format: json
    --log-level debug               TURNOUT_LOG_LEVEL             log_level: debug
    --grace 5                       TURNOUT_GRACE                 grace: 5
    --max-stream-age 0              TURNOUT_MAX_STREAM_AGE        max_stream_age: 0
    --resource-ttl 0                TURNOUT_RESOURCE_TTL          resource_ttl: 0
    --max-streams-per-node 256      TURNOUT_MAX_STREAMS_PER_NODE  max_streams_per_node: 256
    --max-names-per-stream 200000   TURNOUT_MAX_NAMES_PER_STREAM  max_names_per_stream: 200000
    --workers 0                     TURNOUT_WORKERS               workers: 0
    --load-report-interval 10       TURNOUT_LOAD_REPORT_INTERVAL  load_report_interval: 10
    --secret-key-file FILE          TURNOUT_SECRET_KEY_FILE       secret_key_file: FILE
    --config FILE                   TURNOUT_CONFIG

    \b
    turnout serve --data /var/lib/turnout --xds 0.0.0.0:18000
    turnout serve --config turnout.yaml

    Takes no --output: it prints log lines to stderr.
    """
    flags = {"data": data, "api": api, "xds": xds, "log_format": log_format, "log_level": log_level, "grace": grace}
    flags |= {"max_streams_per_node": max_streams_per_node, "max_names_per_stream": max_names_per_stream}
    flags |= {"max_stream_age": max_stream_age, "secret_key_file": secret_key_file, "workers": workers}
    flags |= {"xds_transport": xds_transport, "resource_ttl": resource_ttl}
    flags |= {"load_report_interval": load_report_interval, "metrics": metrics}
    chosen = settings.config(flags, config)
    # Imported here because the other commands need none of it, and start faster.
    from controlplane import logs
    from controlplane.aio import event_loop
    from controlplane.app import App

    logs.set_up(chosen.log_format, chosen.log_level)
    event_loop.run(App(chosen).run())
