"""The program `turnout`: run one command, and turn errors into text and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import Any

import typer
from rich.text import Text
from typer import completion as typer_completion

from controlplane.cli import output, settings
from controlplane.cli.commands import app
from controlplane.cli.cuts import refusal_lines
from controlplane.cli.exits import Ended, Exit, FilesError, cause, exit_code
from controlplane.errors import Error

# Lines of one error that are printed; the others are counted.
_MAX_LINES = 30
# By the error's reason: what the user can do.
_HINTS = {
    "MOVES_TRAFFIC": "Use `turnout switch` or `turnout split` to move traffic, or repeat with --force.",
    "OTHER_HISTORY": "Look at `turnout history` and `turnout get models` to see which state is live now.",
    "STALE_ETAG": "Somebody else changed it. Look at `turnout history`, then repeat the command.",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. No traceback is printed, unless TURNOUT_DEBUG is set."""
    typer_completion.completion_init()  # type: ignore[attr-defined]
    _prepare()
    try:
        code = int(_run(args) or 0)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of stdout is gone, as in `turnout history | head`.
        _discard()
        return Exit.BROKEN_PIPE
    except OSError as error:
        _discard()
        return _write_error(error)
    return code


def _prepare() -> None:
    """Replace closed streams with the null device, and let streams escape characters that their encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 -- open until the process ends
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard() -> None:
    """Discard buffered output, so that writing it at exit can't fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_error(error: OSError) -> Exit:
    with suppress(OSError):
        _print(f"the output can't be written: {cause(error)}")
    return Exit.UNEXPECTED


def _run(args: Sequence[str] | None) -> Any:
    try:
        return app(args=args, prog_name="turnout", standalone_mode=False)
    except Error as error:
        _print_error(error)
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
        return _write_error(error)
    except Exception as error:  # noqa: BLE001 -- otherwise the user would see a traceback
        return _usage_error(error) or _unexpected(error)


def _usage_error(error: Exception) -> Exit | None:
    """Print an error of the command line's syntax. Return None for any other error."""
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
    _print(f"unexpected: {type(error).__name__}: {error}\nThis is a defect. TURNOUT_DEBUG=1 prints the traceback.")
    return Exit.UNEXPECTED


def _print_error(error: Error) -> None:
    """Print an error, one line for each field that is wrong, and a hint."""
    if error.reason == "CUTS_TRAFFIC":
        lines = refusal_lines(error)
    elif isinstance(error, FilesError) or len(error.violations) < 2:
        lines = error.message.splitlines()
    else:
        lines = [f"{v.field}: {v.description}" if v.field else v.description for v in error.violations]
    if len(lines) > _MAX_LINES:
        lines = [*lines[:_MAX_LINES], f"and {len(lines) - _MAX_LINES:,} more"]
    hint = _HINTS.get(error.reason)
    _print("\n".join([*lines, *([hint] if hint else [])]))


def _print(message: str) -> None:
    """Print `Error: ` and the message to stderr."""
    first, _, more_lines = message.partition("\n")
    output.err().print(Text("Error: ", "bold red").append(first, "not bold default"), soft_wrap=True)
    if more_lines:
        output.err().print(more_lines, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
