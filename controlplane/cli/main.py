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
from typer import completion as typer_completion

from controlplane.cli import output, settings
from controlplane.cli.commands import app
from controlplane.cli.error_report import print_text, report, report_text, wants_json
from controlplane.cli.exits import Ended, Exit, cause
from controlplane.errors import Error


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. No traceback is printed, unless TURNOUT_DEBUG is set."""
    typer_completion.completion_init()  # type: ignore[attr-defined]
    _prepare()
    try:
        code = int(_run(sys.argv[1:] if args is None else args) or 0)
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
        print_text(f"the output can't be written: {cause(error)}")
    return Exit.UNEXPECTED


def _run(args: Sequence[str]) -> Any:
    as_json = wants_json(args)
    try:
        return app(args=args, prog_name="turnout", standalone_mode=False)
    except Error as error:
        return report(error, as_json=as_json)
    except Ended as ended:
        if ended.message:
            report_text(ended.message, ended.code, as_json=as_json)
        return ended.code
    except (typer.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EBADF, errno.EIO):
            return _unexpected(error, as_json)
        _discard()
        return _write_error(error)
    except Exception as error:  # noqa: BLE001 -- otherwise the user would see a traceback
        return _usage_error(error, as_json) or _unexpected(error, as_json)


def _usage_error(error: Exception, as_json: bool) -> Exit | None:
    """Print an error of the command line's syntax. Return None for any other error."""
    if not hasattr(error, "format_message"):
        return None
    if message := settings.renamed_flag(getattr(error, "option_name", None) or "") or error.format_message():
        # Typer adds "Value error, " to what click says about one of several values.
        report_text(message.replace(": Value error, ", ": "), Exit.USAGE, as_json=as_json)
        if not as_json and (ctx := getattr(error, "ctx", None)):
            output.notice(f"try: {ctx.command_path} --help")
    return Exit.USAGE


def _unexpected(error: Exception, as_json: bool) -> Exit:
    if os.environ.get("TURNOUT_DEBUG"):
        raise error
    message = f"unexpected: {type(error).__name__}: {error}\nThis is a defect. TURNOUT_DEBUG=1 prints the traceback."
    report_text(message, Exit.UNEXPECTED, as_json=as_json)
    return Exit.UNEXPECTED


if __name__ == "__main__":
    sys.exit(main())
