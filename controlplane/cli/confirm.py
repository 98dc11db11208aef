"""Questions before a change: shown and asked on stderr, so that stdout has only the result."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from controlplane.cli.exits import Ended, Exit

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")]


def confirm(question: str) -> None:
    """Ask a question. Errors: Ended if the answer is no; BadParameter if there is no terminal to ask at."""
    if not sys.stdin.isatty():
        raise typer.BadParameter("needed here, because there is no terminal to ask for confirmation", param_hint="--yes")
    if not typer.confirm(question, err=True):
        raise Ended(Exit.INTERRUPTED, "nothing was changed")
