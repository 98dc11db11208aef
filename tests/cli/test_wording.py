"""Values as people read them."""

from __future__ import annotations

import time

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from controlplane.cli import output, wording
from controlplane.cli.shares import basis_points
from controlplane.generated.turnout.v1.revision_pb2 import Action


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


@pytest.mark.parametrize(("points", "text"), [(10_000, "100%"), (1250, "12.5%"), (1, "0.01%"), (0, "0%")])
def test_shares(points: int, text: str) -> None:
    assert wording.share(points) == text


@given(st.integers(0, 10_000))
def test_a_share_can_be_typed_as_it_is_printed(points: int) -> None:
    text = wording.share(points)
    assert basis_points(text) == points


def test_a_split_names_the_largest_share_first_and_no_zeros() -> None:
    assert wording.split({"blue": 1000, "green": 9000, "red": 0}) == "green 90%, blue 10%"
    assert wording.split({}) == "nobody"


@pytest.mark.parametrize(("age", "text"), [(0, "0s"), (59, "59s"), (61, "1m"), (7_300, "2h"), (200_000, "2d"), (-5, "0s")])
def test_ages(age: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.5)
    assert wording.ago(Timestamp(seconds=1_000_000 - age)) == text
    assert wording.ago(Timestamp()) == wording.when(Timestamp()) == ""


@pytest.mark.parametrize(
    ("nanos", "text"), [(7_240_000, "7.2 ms"), (350_400_000, "350 ms"), (1_250_000_000, "1.25 s"), (0, "0.0 ms")]
)
def test_times_between(nanos: int, text: str) -> None:
    later = Timestamp(seconds=100 + nanos // 10**9, nanos=nanos % 10**9)
    assert wording.milliseconds(Timestamp(seconds=100), later) == text


def test_counts_and_enum_values() -> None:
    assert (wording.plural(1, "node"), wording.plural(1_000, "node")) == ("1 node", "1,000 nodes")
    assert wording.enum_word(Action, Action.ACTION_SWITCH, "ACTION_") == "switch"
    assert wording.enum_word(Action, 99, "ACTION_") == "99"


@pytest.mark.parametrize("etag", ["7a0b93c1-26", "26"])
def test_the_revision_of_an_etag(etag: str) -> None:
    assert wording.revision_of(etag) == "26"
