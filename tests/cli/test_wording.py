"""Values as people read them."""

from __future__ import annotations

import pytest
from rich.text import Text

from controlplane.cli import output, wording


def test_an_id_is_one_line_and_no_wider_than_others(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_name("a\nb\tc\u202ed")
    assert capsys.readouterr().out == "a\\u000ab\\u0009c\\u202ed\n"
    output.show(output.table(("NODE", "STATE"), [("a\nb\tc", Text("d\ne"))]))
    assert capsys.readouterr().out.splitlines()[1].split() == ["a\\u000ab\\u0009c", "d\\u000ae"]
    assert wording.clip("a" * 60) == "a" * 60
    assert wording.clip("a" * 5_000) == "a" * 59 + "…"
    assert wording.indented(" a\nError: b ") == "a\n    Error: b"
    assert wording.resources("a\nb", ["c\nd", "e"]) == "a\\u000ab c\\u000ad and 1 more"
    assert wording.resources("Cluster", ["iris/blue", "iris/green"], 2) == "Cluster iris/blue, iris/green"
    assert len(wording.resources("Cluster", ["x" * 5_000])) < 250
    # More than the API names there may have been.
    assert wording.resources("Cluster", ["x"] * 99, 2) == "Cluster x, x and 97 more"
    assert wording.resources("Cluster", ["x"] * 100, 2) == "Cluster x, x and at least 98 more"


def test_nodes_in_one_line() -> None:
    assert wording.node_list(["nodes/a"]) == "nodes/a"
    assert wording.node_list(["nodes/a", "nodes/b\nc"]) == "nodes/a, nodes/b\\u000ac"
    names = [f"nodes/{i}" for i in range(1_200)]
    assert wording.node_list(names) == "1,200 nodes (nodes/0, nodes/1, nodes/2 and 1,197 more)"
