"""Printing: tables for people, plain lines for programs, and one guard against control characters.

Results go to stdout. Progress, notices and errors go to stderr. Without a terminal there is no colour, and nothing is
wrapped or cut; in a terminal, long cells fold.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterable
from enum import StrEnum

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from controlplane.errors import escaped

# Wider than any line: output that is piped is never wrapped.
_UNWRAPPED = 100_000
# Control characters that texts of several lines may contain.
LAYOUT = "\n\t"
# Columns that never fold: their cells are short.
_SHORT_COLUMNS = (
    *("TYPE", "REVISION", "WHEN", "STATE", "HOLDS", "VARIANT", "SEEN", "DID"),
    *("SHARE", "TRIES/S", "ERRORS", "GONE/S", "IN FLIGHT", "NODES", "LAST", "TOTAL"),
)


class Format(StrEnum):
    """The values of --output."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class _Console(Console):
    """A console that escapes every control character except those of its own colours and progress bars.

    Reasons, authors, node names and Envoy's error texts are written by others, so they can contain anything.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped(segment.text, LAYOUT))


def out() -> Console:
    """Return the console for results."""
    return _Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _UNWRAPPED)


def err() -> Console:
    """Return the console for progress, notices and errors."""
    console = _Console(stderr=True, highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else _Console(stderr=True, highlight=False, markup=False, width=_UNWRAPPED)


def notice(text: str) -> None:
    """Print a line for people to stderr."""
    err().print(text, style="dim", soft_wrap=True)


def line(text: str | Text = "", style: str | None = None) -> None:
    """Print a line of the result for people; a terminal folds it."""
    out().print(text, style=style, soft_wrap=True)


def raw(text: str) -> None:
    """Print text without wrapping, with one newline at its end."""
    sys.stdout.write(escaped(text.rstrip("\n"), LAYOUT) + "\n")
    sys.stdout.flush()


def print_name(name: str) -> None:
    """Print a name on one line, whatever characters it contains."""
    raw(escaped(name))


def table(headings: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> Table:
    """Return a table without frames."""
    columns = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        columns.add_column(heading, overflow="fold", no_wrap=heading in _SHORT_COLUMNS)
    for row in rows:
        # Escape here, before rich measures the columns.
        columns.add_row(*(Text(escaped(cell.plain), cell.style) if isinstance(cell, Text) else escaped(cell) for cell in row))
    return columns


def show(renderable: RenderableType) -> None:
    """Print a table or a group of them."""
    out().print(renderable)


def wait_for_reader(seconds: float) -> None:
    """Wait for some seconds. Errors: BrokenPipeError as soon as the reader of stdout is gone."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)  # poll reports errors without being asked to
    except (OSError, ValueError):  # stdout is not a file
        time.sleep(seconds)
        return
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(seconds * 1000)):
        raise BrokenPipeError


def live(renderables: Iterable[RenderableType]) -> None:
    """Show each item in place of the one before; without a terminal, print one below the other."""
    console = out()
    if not console.is_terminal:
        for renderable in renderables:
            show(renderable)
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as display:
        for renderable in renderables:
            display.update(_Frame(renderable), refresh=True)


class _Frame:
    """The first lines of a page, as many as the terminal has. The last one counts the others."""

    def __init__(self, page: RenderableType) -> None:
        self._page = page

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._page, options.update(height=None), pad=False)
        # The cursor stays on a line of its own.
        room = max(1, console.height - 1)
        for line in lines if len(lines) <= room else lines[: room - 1]:
            yield from line
            yield Segment.line()
        if len(lines) > room:
            yield Text(f"and {len(lines) - room + 1:,} lines more; a taller terminal shows them", "dim", end="")
