"""`--watch`: follow a server, also through its restarts, and say when it was lost and found.

The first answer must come within `--retry-for`. After that the watch goes on until Ctrl-C, whatever happens to the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from controlplane.cli import output
from controlplane.cli.client import Client
from controlplane.errors import Code, Error

# Seconds between two attempts to reach a lost server.
_RECONNECT_EVERY = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Update(Generic[T]):
    """The newest answer of a watched server."""

    value: T
    # A line about the connection. Empty while nothing has happened to it.
    note: str = ""
    # True if the server does not answer now. Then `value` is its last answer.
    lost: bool = False


def follow(client: Client, answers: Callable[[], Iterable[T]]) -> Iterator[Update[T]]:
    """Yield each answer of a server. When the server is lost, yield its last answer again, and repeat the call `answers`.

    Errors: Error if the first answer does not come, or if the server refuses the call.
    """
    last: Update[T] | None = None
    note = ""
    first_deadline = time.monotonic() + client.retry_for
    while True:
        try:
            for answer in answers():
                if last is None:
                    # From now on a lost server is shown, and not waited for in silence.
                    client.retry_for = 0.0
                elif last.lost:
                    note = f"Reconnected to {client.address} at {_now()}."
                last = Update(answer, note)
                yield last
            cause = f"{client.address} ended the connection"
        except Error as error:
            if error.code is not Code.UNAVAILABLE or (last is None and time.monotonic() >= first_deadline):
                raise
            cause = error.message.partition("\n")[0]
        if last is not None and not last.lost:
            note = f"Connection lost at {_now()}: {cause}. Reconnecting; the lines below are older."
            last = Update(last.value, note, lost=True)
            yield last
        output.wait_for_reader(_RECONNECT_EVERY)


def show_live(updates: Iterable[Update[T]], page: Callable[[T], RenderableType]) -> None:
    """Show the page of each update: in a terminal in place of the one before, with the note on top."""
    if not output.out().is_terminal:
        for value in _with_notices(updates):
            output.show(page(value))
        return
    output.live(_noted(update, page) for update in updates)


def print_each(updates: Iterable[Update[T]], print_value: Callable[[T], None]) -> None:
    """Print each answer for programs. Notes go to stderr."""
    for value in _with_notices(updates):
        print_value(value)


def _with_notices(updates: Iterable[Update[T]]) -> Iterator[T]:
    """Yield the answers without repetition, and print each new note to stderr."""
    noted = ""
    for update in updates:
        if update.note != noted:
            noted = update.note
            output.notice(noted)
        if not update.lost:
            yield update.value


def _noted(update: Update[T], page: Callable[[T], RenderableType]) -> RenderableType:
    if not update.note:
        return page(update.value)
    return Group(Text(update.note, "bold red" if update.lost else "green"), page(update.value))


def _now() -> str:
    return time.strftime("%H:%M:%S")
