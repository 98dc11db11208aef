"""`turnout`: the commands together, and the one place where errors become words and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from rich.text import Text
from typer import completion as typer_completion

from controlplane.cli import fleet, history, objects, output, secret, settings, setup, switch, traffic
from controlplane.cli.client import DEFAULT_API
from controlplane.cli.exits import MEANINGS, Ended, Exit, FilesError, exit_code
from controlplane.cli.options import Globals
from controlplane.errors import Error

_MAX_LINES = 30

_HELP = """Move the traffic of ML models from one version to another, on every Envoy at once.

\b
turnout serve                            the control plane; then, elsewhere:
turnout bootstrap edge-1 > edge-1.yaml   what an Envoy needs to find it
turnout apply -f models.yaml             gateways, models, their versions
turnout switch iris --to green           all users, on every Envoy
turnout undo                             and back

Every command says more with --help. `turnout demo` plays all this by itself.

\b
Environment
  TURNOUT_API        where the operator API is: HOST:PORT
  TURNOUT_AUTHOR     who makes the change, for the history; default user@host
  TURNOUT_RETRY_FOR  seconds for which a server that is away is tried again
  NO_COLOR           no colour; there is none without a terminal either

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
        str, typer.Option("--api", metavar="HOST:PORT", envvar="TURNOUT_API", help="Where the operator API is.")
    ] = DEFAULT_API,
    retry_for: Annotated[
        float,
        typer.Option(
            "--retry-for",
            metavar="SECONDS",
            min=0.0,
            envvar="TURNOUT_RETRY_FOR",
            help="How long to try a server that is away.",
        ),
    ] = 5.0,
) -> None:
    ctx.obj = Globals(api, retry_for)


_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Move traffic": {"switch": switch.switch, "split": switch.split, "undo": switch.undo},
    "Desired state": {
        "apply": objects.apply,
        "validate": objects.validate,
        "get": objects.get,
        "delete": objects.delete,
    },
    "See": {
        "status": fleet.status,
        "traffic": traffic.traffic,
        "nodes": fleet.nodes,
        "history": history.history,
        "diff": history.diff,
    },
    "Set up": {
        "serve": setup.serve,
        "bootstrap": setup.bootstrap,
        "demo": setup.demo,
        "schema": setup.show_schema,
        "completion": setup.completion,
        "version": setup.version,
    },
}

for _panel, _commands in _COMMANDS.items():
    for _name, _function in _commands.items():
        app.command(_name, rich_help_panel=_panel)(_function)

app.add_typer(secret.app, name="secret", rich_help_panel="Desired state")


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. No traceback gets out of here, unless TURNOUT_DEBUG is set."""
    typer_completion.completion_init()  # type: ignore[attr-defined]
    _prepare()
    try:
        code = int(_run(args) or 0)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough.
        _discard()
        return Exit.BROKEN_PIPE
    except OSError as error:
        _discard()
        return _unwritten(error)
    return code


def _prepare() -> None:
    """Streams that are closed swallow what is written; a character that a stream's encoding lacks is written as its code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 -- until the end
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard() -> None:
    """What is still buffered must not fail again at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unwritten(error: OSError) -> Exit:
    with suppress(OSError):
        _print(f"the output can't be written: {(error.strerror or str(error)).lower()}")
    return Exit.UNEXPECTED


def _run(args: Sequence[str] | None) -> Any:
    try:
        return app(args=args, prog_name="turnout", standalone_mode=False)
    except Error as error:
        _say(error)
        return exit_code(error)
    except Ended as ended:
        if ended.message:
            _print(ended.message)
        return ended.code
    except (typer.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EBADF, errno.EIO):
            return _unexpected(error)
        _discard()
        return _unwritten(error)
    except Exception as error:  # noqa: BLE001 -- the last place before a user sees a traceback
        return _said_by_typer(error) or _unexpected(error)


def _said_by_typer(error: Exception) -> Exit | None:
    """Errors of the command line itself; None when it is none of them."""
    if not hasattr(error, "format_message"):
        return None
    if message := settings.renamed_flag(getattr(error, "option_name", None) or "") or error.format_message():
        _print(message)
        if ctx := getattr(error, "ctx", None):
            output.notice(f"try: {ctx.command_path} --help")
    return Exit.USAGE


def _unexpected(error: Exception) -> Exit:
    if os.environ.get("TURNOUT_DEBUG"):
        raise error
    _print(f"unexpected: {type(error).__name__}: {error}\nthis is a defect; TURNOUT_DEBUG=1 shows where it comes from")
    return Exit.UNEXPECTED


def _say(error: Error) -> None:
    """What is wrong, each field on a line of its own."""
    if isinstance(error, FilesError) or len(error.violations) < 2:
        lines = error.message.splitlines()
    else:
        lines = [f"{v.field}: {v.description}" if v.field else v.description for v in error.violations]
    if len(lines) > _MAX_LINES:
        lines = [*lines[:_MAX_LINES], f"and {len(lines) - _MAX_LINES:,} more"]
    hint = _HINTS.get(error.reason)
    _print("\n".join([*lines, *([hint] if hint else [])]))


_HINTS = {
    "MOVES_TRAFFIC": "say --force to move it all the same, or use `turnout switch` and `turnout split`",
    "STALE_ETAG": "somebody was faster: look again with `turnout history`, then repeat the command",
}


def _print(message: str) -> None:
    first, _, rest = message.partition("\n")
    output.err().print(Text("Error: ", "bold red").append(first, "not bold default"), soft_wrap=True)
    if rest:
        output.err().print(rest, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
