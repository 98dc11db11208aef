"""The commands `demo`, `schema`, `version` and `completion`."""

from __future__ import annotations

import platform
from enum import StrEnum
from importlib import import_module, metadata
from typing import Annotated

import typer
from typer import completion as typer_completion

from controlplane.cli import messages, output, schema
from controlplane.cli.output import Format, line
from controlplane.errors import Code, Error


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running afterwards, and print commands to try.")
    ] = False,
    users: Annotated[int, typer.Option("--users", min=1, help="Number of users who send requests.")] = 2000,
    envoys: Annotated[int, typer.Option("--envoys", min=1, max=20, help="Number of real Envoys.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the training. The same seed trains the same models.")] = 1,
    form: Annotated[Format, typer.Option("--output", "-o", help="table, or json for the receipt.")] = Format.TABLE,
) -> None:
    r"""Show a switch and an undo in a minute, with real Envoys, a real model and real load.

    Needs `pip install 'turnout\[demo]'`.

    \b
    turnout demo
    turnout demo --keep --users 5000

    JSON: the demo's own receipt, not a message of the API.
    """
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
    r"""Print the JSON Schema of files of desired state, for editors.

    \b
    turnout schema > turnout.schema.json
    and as the first line of a file:  # yaml-language-server: $schema=turnout.schema.json

    Takes no --output: it always prints JSON.
    """
    output.raw(schema.text())


def version(form: Annotated[Format, typer.Option("--output", "-o", help="How to print the result.")] = Format.TABLE) -> None:
    """Print the versions of Turnout, Python and grpcio.

    JSON: `turnout`, `python` and `grpcio`, each a text.
    """
    versions = {
        "turnout": metadata.version("turnout"),
        "python": platform.python_version(),
        "grpcio": metadata.version("grpcio"),
    }
    if form in (Format.JSON, Format.YAML):
        messages.print_data(versions, form)
    elif form is Format.NAME:
        output.raw(versions["turnout"])
    else:
        line(f"turnout {versions['turnout']} (Python {versions['python']}, grpcio {versions['grpcio']})")


def print_version(wanted: bool) -> None:
    """Print the versions and end the program, for `turnout --version`."""
    if wanted:
        version(Format.TABLE)
        raise typer.Exit()


class Shell(StrEnum):
    """Shells with completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[
        Shell, typer.Argument(metavar="bash|zsh|fish", show_default=False, help="The shell to print a script for.")
    ],
) -> None:
    r"""Print a script that makes the shell complete commands, options and names.

    \b
    bash:  eval "$(turnout completion bash)"
    zsh:   eval "$(turnout completion zsh)"
    fish:  turnout completion fish | source

    Takes no --output: it prints a shell script.
    """
    output.raw(
        typer_completion.get_completion_script(  # type: ignore[attr-defined]
            prog_name="turnout", complete_var="_TURNOUT_COMPLETE", shell=shell.value
        )
    )
