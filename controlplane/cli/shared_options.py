"""Options that every command with `--api` has, although its function does not name them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Annotated, Any

import typer

from controlplane.cli.options import DEFAULT_RETRY, Api, Globals

RETRY_FOR = "How long to retry calls to an unreachable server."

_Option = Annotated[
    float | None,
    typer.Option(
        "--retry-for", metavar="SECONDS", min=0.0, help=f"{RETRY_FOR} Default: $TURNOUT_RETRY_FOR, or {DEFAULT_RETRY:g}."
    ),
]


def with_shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the option `--retry-for` after `--api`. A command that calls no server stays the same."""
    signature = inspect.signature(command, eval_str=True)
    parameters = list(signature.parameters.values())
    at = next((i for i, parameter in enumerate(parameters) if parameter.annotation == Api), None)
    if at is None:
        return command

    @wraps(command)
    def wrapped(*args: Any, retry_for: float | None = None, **kwargs: Any) -> None:
        ctx: typer.Context = kwargs["ctx"]
        if retry_for is not None:
            ctx.obj = replace(ctx.find_object(Globals) or Globals(), retry_for=retry_for)
        command(*args, **kwargs)

    option = inspect.Parameter("retry_for", parameters[at].kind, default=None, annotation=_Option)
    parameters.insert(at + 1, option)
    # Typer reads the options of a command from these two.
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {**typing.get_type_hints(command, include_extras=True), "retry_for": _Option}
    return wrapped
