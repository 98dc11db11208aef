"""The command `serve`: the control plane itself."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Annotated

import typer

from controlplane.cli import settings
from controlplane.cli.client import DEFAULT_API
from controlplane.cli.options import DEFAULT_DATA, DEFAULT_XDS
from controlplane.config import Config as ServerConfig

# Each option is text here; `settings` parses it, so that an error can name the flag, the variable or the line of the file.
Data = Annotated[str | None, typer.Option("--data", metavar="DIR", help=f"Folder of the store. Default: {DEFAULT_DATA}.")]
Init = Annotated[
    bool,
    typer.Option(
        "--init", help="Start a new history in a folder that was used before. Its files are moved into a folder in it."
    ),
]
Api = Annotated[str | None, typer.Option("--api", metavar="HOST:PORT", help=f"Address for operators. Default: {DEFAULT_API}.")]
Xds = Annotated[str | None, typer.Option("--xds", metavar="HOST:PORT", help=f"Address for Envoys. Default: {DEFAULT_XDS}.")]
Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics", metavar="HOST:PORT", help="Address for Prometheus, on loopback, or off. Default: 127.0.0.1:18090."
    ),
]
XdsTransport = Annotated[
    str | None, typer.Option("--xds-transport", metavar="NAME", help="Transport of xDS: http2 or grpc. Default: http2.")
]
Config = Annotated[
    str | None, typer.Option("--config", metavar="FILE", envvar="TURNOUT_CONFIG", help="File with settings in YAML.")
]
LogFormat = Annotated[str | None, typer.Option("--log-format", help="Format of log lines: json or console. Default: console.")]
LogLevel = Annotated[
    str | None, typer.Option("--log-level", help="Least level of log lines: debug, info, warning or error. Default: info.")
]
Grace = Annotated[
    str | None,
    typer.Option("--grace", metavar="SECONDS", help="Time that calls get to end when the server stops. Default: 5."),
]
SecretKeyFile = Annotated[
    str | None,
    typer.Option(
        "--secret-key-file",
        metavar="FILE",
        help="File with the key that encrypts private keys in the store. Default: DIR/secret.key.",
    ),
]
Access = Annotated[
    str | None,
    typer.Option(
        "--access",
        metavar="FILE",
        help="Roles of the API's callers, in YAML. Watched. Default: everybody who reaches the port may do everything.",
    ),
]
ApiTokens = Annotated[
    str | None,
    typer.Option(
        "--api-tokens", metavar="FILE", help="Hashes of tokens, by `turnout token new`. Watched. Default: no such tokens."
    ),
]
ApiTlsCert = Annotated[
    str | None,
    typer.Option("--api-tls-cert", metavar="FILE", help="Certificate for TLS on the API's port. Watched. Default: no TLS."),
]
ApiTlsKey = Annotated[
    str | None, typer.Option("--api-tls-key", metavar="FILE", help="The key of --api-tls-cert. Watched. Default: no TLS.")
]
ApiClientCa = Annotated[
    str | None,
    typer.Option(
        "--api-client-ca",
        metavar="FILE",
        help="Authorities of the API clients' certificates; each client needs one then. Watched. Default: none is asked for.",
    ),
]
XdsTlsCert = Annotated[
    str | None,
    typer.Option(
        "--xds-tls-cert", metavar="FILE", help="The server's certificate for TLS on the xDS port. Watched. Default: no TLS."
    ),
]
XdsTlsKey = Annotated[
    str | None, typer.Option("--xds-tls-key", metavar="FILE", help="The key of --xds-tls-cert. Watched. Default: no TLS.")
]
XdsClientCa = Annotated[
    str | None,
    typer.Option(
        "--xds-client-ca", metavar="FILE", help="The authorities of the Envoys' certificates. Watched. Default: no TLS."
    ),
]
XdsIdentities = Annotated[
    str | None,
    typer.Option(
        "--xds-identities",
        metavar="FILE",
        help="The nodes that each identity may claim to be (examples/xds-tls). Watched. Default: no TLS.",
    ),
]
XdsCrl = Annotated[
    str | None,
    typer.Option("--xds-crl", metavar="FILE", help="Revoked certificates of Envoys, in PEM. Watched. Default: none."),
]
SecretKeyCommand = Annotated[
    str | None,
    typer.Option(
        "--secret-key-command",
        metavar="COMMAND",
        help="Instead: command that prints that key, like a KMS client. It is run once, without a shell. Default: none.",
    ),
]
KeepWithdrawnKeys = Annotated[
    str | None,
    typer.Option(
        "--keep-withdrawn-keys",
        metavar="SECONDS",
        help="Time for which private keys that no object uses any more can come back. 0: for ever. Default: 2592000, 30 days.",
    ),
]
MaxStreamsPerNode = Annotated[
    str | None, typer.Option("--max-streams-per-node", metavar="N", help="Most xDS streams of one node. Default: 256.")
]
MaxNamesPerStream = Annotated[
    str | None,
    typer.Option(
        "--max-names-per-stream",
        metavar="N",
        help="Most resource names that one xDS stream subscribes to. Default: 200000.",
    ),
]
MaxStreamAge = Annotated[
    str | None,
    typer.Option("--max-stream-age", metavar="SECONDS", help="Age at which the server ends an xDS stream. Default: 0, never."),
]
ResourceTtl = Annotated[
    str | None,
    typer.Option(
        "--resource-ttl",
        metavar="SECONDS",
        help="Time after which Envoys drop resources that no control plane confirms. Default: 0, never.",
    ),
]
LoadReportInterval = Annotated[
    str | None,
    typer.Option(
        "--load-report-interval",
        metavar="SECONDS",
        help="Least time between two load reports of a client. It grows with the fleet. Default: 2.",
    ),
]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="Processes that serve xDS; auto: one a core. Default: 0, the main process serves it.",
    ),
]

Probe = Annotated[
    bool | None,
    typer.Option(
        "--probe/--no-probe",
        help="Probe the endpoints of a version when traffic moves to it, and warn if they don't answer. Default: --probe.",
    ),
]

Patches = Annotated[
    str | None,
    typer.Option(
        "--patches",
        metavar="MODULE",
        help="Plug-in with functions that patches may name: a Python module, or the path of its file or folder. Default: the "
        "modules of the entry points in the group turnout.patches.",
    ),
]

Audit = Annotated[
    str | None, typer.Option("--audit", metavar="DIR|off", help="Folder of the audit log, or off. Default: audit in --data.")
]
AuditMegabytes = Annotated[
    str | None,
    typer.Option("--audit-megabytes", metavar="N", help="Most MB of the audit log; then old entries go. Default: 256."),
]
AuditExport = Annotated[
    str | None,
    typer.Option(
        "--audit-export",
        metavar="FILE|syslog",
        help="Also send audit entries to a file, syslog, syslog:HOST:PORT or syslog:/SOCKET. Default: nowhere.",
    ),
]
Insecure = Annotated[
    bool | None,
    typer.Option(
        "--insecure",
        help="Listen on addresses that other machines can reach also without TLS. Default: such an address is refused.",
    ),
]


def serve(
    ctx: typer.Context,
    data: Data = None,
    init: Init = False,
    api: Api = None,
    xds: Xds = None,
    metrics: Metrics = None,
    xds_transport: XdsTransport = None,
    config: Config = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    grace: Grace = None,
    secret_key_file: SecretKeyFile = None,
    access: Access = None,
    api_tokens: ApiTokens = None,
    api_tls_cert: ApiTlsCert = None,
    api_tls_key: ApiTlsKey = None,
    api_client_ca: ApiClientCa = None,
    xds_tls_cert: XdsTlsCert = None,
    xds_tls_key: XdsTlsKey = None,
    xds_client_ca: XdsClientCa = None,
    xds_identities: XdsIdentities = None,
    xds_crl: XdsCrl = None,
    secret_key_command: SecretKeyCommand = None,
    keep_withdrawn_keys: KeepWithdrawnKeys = None,
    max_streams_per_node: MaxStreamsPerNode = None,
    max_names_per_stream: MaxNamesPerStream = None,
    max_stream_age: MaxStreamAge = None,
    resource_ttl: ResourceTtl = None,
    load_report_interval: LoadReportInterval = None,
    workers: Workers = None,
    probe: Probe = None,
    insecure: Insecure = None,
    audit: Audit = None,
    audit_megabytes: AuditMegabytes = None,
    audit_export: AuditExport = None,
    patches: Patches = None,
) -> None:
    r"""Run the control plane until SIGTERM or Ctrl-C.

    Each setting can be a flag, an environment variable or a line of the settings file. The variable of `--log-format` is
    TURNOUT_LOG_FORMAT, its line in the file is `log_format: json`, and so on for each option below. A flag overrides the
    environment, the environment overrides the file, and the file overrides the default.

    \b
    turnout serve --data /var/lib/turnout --xds-tls-cert … --xds 0.0.0.0:18000
    TURNOUT_LOG_FORMAT=json turnout serve --config turnout.yaml

    The key that encrypts private keys may also be in the variable TURNOUT_SECRET_KEY, which has no flag.

    A folder that shows signs of earlier use but holds no store is refused. The store's integrity is checked at the start.

    Takes no --output: it prints log lines to stderr.
    """
    # The parameters above declare the options; typer keeps their values in `ctx.params`, too.
    _run(replace(settings.config(settings.flags(ctx.params), config, serving=True), init=init))


def _run(config: ServerConfig) -> None:
    """Run the control plane until SIGTERM or Ctrl-C."""
    # Imported here because the other commands need none of it, and start faster. Modules stay, so the garbage collector would
    # look at them in vain: a tenth of the start.
    gc.disable()
    from controlplane import logs
    from controlplane.aio import event_loop
    from controlplane.app import App

    gc.enable()
    logs.set_up(config.log_format, config.log_level)
    event_loop.run(App(config).run())
