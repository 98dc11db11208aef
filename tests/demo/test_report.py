"""The printed receipt of the demo."""

from __future__ import annotations

import io

from rich.console import Console

from controlplane.demo.receipt import Line, Move, Receipt
from controlplane.demo.report import print_receipt

MOVE = Move("turnout undo", "green", "blue", 3, nodes=2, commit=10.0, last_ack=10.0058, accuracy=0.84)
LINE = Line(MOVE, before={"green": 3_825}, between={}, after={"blue": 3_207}, late=0, outlived=12, failed=0)


def printed(receipt: Receipt) -> str:
    file = io.StringIO()
    print_receipt(Console(file=file, width=200), receipt)
    return file.getvalue()


def test_a_column_for_each_move() -> None:
    text = printed(Receipt(2, 500, 7_032, 0, [], [LINE, LINE]))
    rows = {cells[0]: cells[1:] for line in text.splitlines() if len(cells := line.split("  ")) > 1}
    assert [c.strip() for c in rows["nodes that ACKed"] if c.strip()] == ["2 of 2"] * 2
    assert [c.strip() for c in rows["commit to last ACK"] if c.strip()] == ["5.8 ms"] * 2
    assert "green 3,825" in text
    assert "84.0%" in text
    assert "All promises kept: 7,032 requests of 500 users, 0 failed" in text


def test_broken_promises_are_listed() -> None:
    text = printed(Receipt(2, 500, 10, 1, ["x"], [LINE], ["1 of 10 requests failed"]))
    assert "These promises were not kept:\n  1 of 10 requests failed" in text
    assert "All promises kept" not in text


def test_a_demo_without_a_move_has_no_rows() -> None:
    assert "revision" not in printed(Receipt(2, 500, 0, 0, [], [], ["no traffic was moved"]))
