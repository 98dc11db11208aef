"""The demo's receipt as it is printed."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from controlplane.demo.receipt import Line, Receipt


def print_receipt(console: Console, receipt: Receipt) -> None:
    """Print a column for each move, and whether every promise was kept."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("")
    columns = [_column(line, receipt.nodes) for line in receipt.lines]
    for line in receipt.lines:
        # Without the name of the program, both headings fit into 80 columns.
        table.add_column(line.move.command.removeprefix("turnout "), justify="right")
    for label in columns[0] if columns else ():
        table.add_row(label, *(column[label] for column in columns))
    console.print()
    console.print(table)
    console.print()
    if receipt.broken:
        console.print("These promises were not kept:", style="bold red")
        for sentence in receipt.broken:
            console.print(f"  {sentence}", style="red")
    else:
        text = f"All promises kept: {receipt.requests:,} requests of {receipt.users:,} users, {receipt.failed} failed"
        console.print(text, style="bold green")


def _column(line: Line, nodes: int) -> dict[str, str]:
    """Return a move's values by the label of their row."""
    move = line.move
    return {
        "revision": str(move.revision),
        "nodes that ACKed": f"{move.nodes} of {nodes}",
        "commit to last ACK": f"{(move.last_ack - move.commit) * 1e3:.1f} ms",
        "requests before": _counts(line.before),
        "requests after": _counts(line.after),
        "late, to the old version": str(line.late),
        "streams that outlived it": str(line.outlived),
        "requests failed": str(line.failed),
        "read right afterwards": f"{move.accuracy:.1%}" if move.accuracy is not None else "",
    }


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{version} {count:,}" for version, count in sorted(counts.items())) or "none"
