"""Tables of nodes: odd ids, several streams, notes and refusals."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from controlplane.cli import output
from controlplane.cli.node_table import nodes_table
from controlplane.generated.turnout.v1.node_pb2 import Node, NodeState
from tests.cli.conftest import Run, Server


def test_an_odd_id_is_shown_on_one_short_line(run: Run, applied: Server) -> None:
    applied.connect("a\nb\t\u202ec" + "d" * 5_000)
    lines = run("nodes").out.splitlines()
    row = next(line for line in lines if line.startswith("nodes/a"))
    assert row.startswith("nodes/a\\u000ab\\u0009\\u202ecd")
    assert "d…  " in row
    assert len(row) < 200
    assert len(run("nodes", "-o", "name").out.splitlines()) == 1
    assert run("nodes", "-o", "json").json["nodes"][0]["id"].startswith("a\nb\t\u202ec")
    out = run("switch", "iris", "--to", "green").out
    assert "    nodes/a\\u000ab" in out
    assert len(max(out.splitlines(), key=len)) < 200


def test_several_streams_of_one_node_are_counted(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    assert "×" not in run("nodes").out
    applied.connect("edge-1")
    assert "delta ×2" in run("nodes").out


def test_a_node_that_no_gateway_selects_has_a_note(run: Run, applied: Server, minimal: Path) -> None:
    applied.connect("edge-1")
    note = "nodes/edge-1: no gateway selects it: edge wants cluster in [elsewhere]"
    assert note not in run("nodes").out
    minimal.write_text(minimal.read_text().replace("port: 10000", "port: 10000\n    nodes: {clusters: [elsewhere]}"))
    assert run("apply", "-f", minimal, "--force", "--allow-cut").code == 0
    assert note in run("nodes").out
    assert note in run("nodes", "edge-1").out
    assert note in run("status").out


def test_what_a_remembered_node_holds_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    gone = Node(name="nodes/a", state=NodeState.NODE_STATE_GONE, target_revision=4, gateways=["gateways/edge"])
    behind = Node(name="nodes/b", state=NodeState.NODE_STATE_BEHIND, target_revision=4, gateways=["gateways/edge"])
    output.show(nodes_table([gone, behind]))
    rows = capsys.readouterr().out.splitlines()[1:]
    assert ["? of 4" in rows[0], "0 of 4" in rows[1]] == [True, True]


def test_the_last_message_before_a_restart_is_known_to_the_hour(capsys: pytest.CaptureFixture[str]) -> None:
    """The start of the hour was shown as if the node had been silent since then."""
    hour = int(time.time()) // 3600 * 3600 - 7_200
    remembered, gone, connected = (Node(name=f"nodes/{name}") for name in "abc")
    remembered.last_seen_time.seconds = connected.last_seen_time.seconds = hour
    gone.last_seen_time.FromMilliseconds(hour * 1000 + 1)
    connected.streams = 1
    output.show(nodes_table([remembered, gone, connected]))
    assert [row.split()[-1] for row in capsys.readouterr().out.splitlines()[1:]] == ["≤2h", "2h", "2h"]
