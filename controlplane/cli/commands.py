"""The commands of `turnout`, with their groups and the options that come before a command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from controlplane.cli import (
    apply,
    audit,
    backup,
    bootstrap,
    can,
    check,
    delete,
    diff,
    edit,
    get,
    going_back,
    history,
    login,
    nodes,
    rotate_key,
    secret,
    serve,
    setup,
    status,
    switch,
    token,
    traffic,
)
from controlplane.cli.client import DEFAULT_API
from controlplane.cli.credentials import Credentials, client_config, config_folder
from controlplane.cli.exits import MEANINGS
from controlplane.cli.options import DEFAULT_RETRY, Globals, help_text
from controlplane.cli.shared_options import RETRY_FOR, with_shared_options

_HELP = """Move the traffic of ML models from one version to another, on every Envoy at once.

\b
turnout serve                            run the control plane
turnout bootstrap edge-1 > edge-1.yaml   print the bootstrap of an Envoy
turnout apply -f models.yaml             create gateways, models and versions
turnout switch iris --to green           move all users, on every Envoy
turnout undo iris                        move them back

`turnout COMMAND --help` explains a command. `turnout demo` shows a switch.

Every command that reads or changes state takes `--output json`. Then errors are JSON, too, on stderr.

\b
Environment
  TURNOUT_API        address of the operator API, HOST:PORT
  TURNOUT_AUTHOR     author of changes in the history; default user@host. Where callers have credentials, it is a note
  TURNOUT_RETRY_FOR  seconds to retry calls to an unreachable server
  TURNOUT_CA, TURNOUT_CERT, TURNOUT_KEY, TURNOUT_TOKEN_FILE  files of TLS and of the caller's token
  NO_COLOR           turn colours off; they are off without a terminal

\b
Exit codes
"""

_HELP += "\n".join(f"{code.value:>5}  {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    name="turnout",
    help=_HELP,
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    ctx: typer.Context,
    api: Annotated[
        str, typer.Option("--api", metavar="HOST:PORT", envvar="TURNOUT_API", help="Address of the operator API.")
    ] = DEFAULT_API,
    retry_for: Annotated[
        float,
        typer.Option(
            "--retry-for",
            metavar="SECONDS",
            min=0.0,
            envvar="TURNOUT_RETRY_FOR",
            help=RETRY_FOR,
        ),
    ] = DEFAULT_RETRY,
    ca: Annotated[
        str,
        typer.Option(
            "--ca", metavar="FILE", envvar="TURNOUT_CA", help="Authorities of the server's certificate, or `system`: use TLS."
        ),
    ] = "",
    cert: Annotated[
        str,
        typer.Option("--cert", metavar="FILE", envvar="TURNOUT_CERT", help="Client certificate, if the server asks for one."),
    ] = "",
    key: Annotated[str, typer.Option("--key", metavar="FILE", envvar="TURNOUT_KEY", help="The key of --cert.")] = "",
    token_file: Annotated[
        str,
        typer.Option("--token-file", metavar="FILE", envvar="TURNOUT_TOKEN_FILE", help="File with the token of the caller."),
    ] = "",
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=setup.print_version, help="Print the version, and exit.")
    ] = False,
) -> None:
    """Store the options that come before the command."""
    source = ctx.get_parameter_source("api")
    if source is not None and source.name == "DEFAULT":
        api = client_config(config_folder()).get("api", api)
    ctx.obj = Globals(api, retry_for, Credentials(ca, cert, key, token_file))


# Group -> name of the command -> its function.
COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Move traffic": {"switch": switch.switch, "split": switch.split, "undo": going_back.undo},
    "Go back": {"revert": going_back.revert, "restore-state": going_back.restore_state},
    "Desired state": {
        "apply": apply.apply,
        "validate": apply.validate,
        "get": get.get,
        "edit": edit.edit,
        "delete": delete.delete,
    },
    "Observe": {
        "status": status.status,
        "traffic": traffic.traffic,
        "nodes": nodes.nodes,
        "history": history.history,
        "diff": diff.diff,
        "audit": audit.audit,
    },
    "Set up": {
        "serve": serve.serve,
        "check": check.check,
        "backup": backup.backup,
        "restore": backup.restore,
        "rotate-key": rotate_key.rotate_key,
        "login": login.login,
        "can": can.can,
        "bootstrap": bootstrap.bootstrap,
        "demo": setup.demo,
        "schema": setup.show_schema,
        "completion": setup.completion,
        "version": setup.version,
    },
}

for _group, _commands in COMMANDS.items():
    for _name, _function in _commands.items():
        app.command(_name, rich_help_panel=_group, help=help_text(_function))(with_shared_options(_function))

app.add_typer(secret.app, name="secret", rich_help_panel="Desired state")
app.add_typer(token.app, name="token", rich_help_panel="Set up")
