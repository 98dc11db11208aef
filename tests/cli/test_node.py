"""`turnout nodes NODE`, on a real control plane with xDS clients; and rare states as values."""

from __future__ import annotations

import time
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.cli import output
from controlplane.cli.exits import Exit
from controlplane.cli.node import node_view
from controlplane.envoy_types import ROUTES
from controlplane.generated.turnout.v1 import node_pb2
from tests.cli.conftest import Run, Server


def status_when_settled(run: Run, *args: str, resources: int) -> Any:
    """Return the report as soon as this number of resources is not in sync. The ACKs need some time."""
    deadline = time.monotonic() + 20
    while True:
        report = run("nodes", "edge-1", "-o", "json", *args).json["status"]
        if report["types"] and len(report["resources"]) == resources:
            return report
        assert time.monotonic() < deadline, report
        time.sleep(0.02)


def test_in_sync(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    report = status_when_settled(run, resources=0)
    assert report["node"]["name"] == "nodes/edge-1"
    assert {t["type"]: t["synced"] for t in report["types"]}["Cluster"] == 2
    table = run("nodes", "edge-1").out
    assert "Everything is in sync." in table
    cells = next(line.split() for line in table.splitlines() if line.startswith("Cluster "))
    assert cells[1:6] == ["2", "2", "0", "0", "0"]


def test_the_identity_in_the_certificate_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    node = node_pb2.Node(name="nodes/web", state=node_pb2.NODE_STATE_GONE, identity="spiffe://td/web")
    output.show(node_view(node_pb2.NodeStatus(node=node), every=False))
    assert "Its certificate proves the identity spiffe://td/web." in capsys.readouterr().out


def test_all_lists_every_resource_with_version_and_time(run: Run, applied: Server) -> None:
    client = applied.connect("edge-1")
    status_when_settled(run, resources=0)
    every = run("nodes", "edge-1", "--all", "-o", "json").json["status"]["resources"]
    assert {(r["name"], r["heldVersion"]) for r in every if r["type"] == "RouteConfiguration"} == {
        (name, client.held[ROUTES][name][0]) for name in ("iris", "gateways/edge")
    }
    rows = [line.split()[:4] for line in run("nodes", "edge-1", "--all").out.splitlines()]
    assert ["RouteConfiguration", "iris", "synced", client.held[ROUTES]["iris"][0]] in rows


def test_a_refused_resource_is_shown_with_its_diff(run: Run, applied: Server) -> None:
    error = {"text": ""}
    applied.connect("edge-1", refuse=lambda type_url: error["text"] if type_url == ROUTES else "")
    status_when_settled(run, resources=0)
    error["text"] = "no such\x1b[31m thing"
    assert run("switch", "iris", "--to", "green").code == Exit.REFUSED
    (route,) = status_when_settled(run, resources=1)["resources"]
    assert (route["state"], route["refusal"]["revision"]) == ("RESOURCE_STATE_REFUSED", "2")
    report = run("nodes", "edge-1").out
    assert "RouteConfiguration iris was refused" in report
    assert "of revision 2: no such\\u001b[31m thing" in report
    lines = [line.strip() for line in report.splitlines()]
    assert any(line.startswith("-") and "iris/blue" in line for line in lines)
    assert any(line.startswith("+") and "iris/green" in line for line in lines)
    assert "Everything is in sync." not in report


def test_names_that_are_not_nodes(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    result = run("nodes", "missing")
    assert (result.code, "nodes/missing does not exist" in result.err) == (Exit.NOT_FOUND, True)
    for args in (["--all"], ["edge-1", "--all", "--watch"], ["edge-1", "--all", "--reconnect"]):
        assert run("nodes", *args).code == Exit.USAGE


def ago(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(time.time() - seconds))


def printed(status: node_pb2.NodeStatus, capsys: pytest.CaptureFixture[str], *, every: bool = False) -> str:
    output.show(node_view(status, every))
    return capsys.readouterr().out


def test_each_state_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = node_pb2.ResourceRefusal(version="2", revision=7, message="bad", time=ago(300))
    status_of, state = node_pb2.ResourceStatus, node_pb2.ResourceState
    status = node_pb2.NodeStatus(
        types=[
            node_pb2.TypeStatus(type="Cluster", sent=1, waiting=3, refused=2, not_asked=1, absent=2, newest_time=ago(7_300))
        ],
        resources=[
            status_of(type="Cluster", name="a", state=state.RESOURCE_STATE_REFUSED, target_version="2", refusal=refusal),
            status_of(type="Cluster", name="b", state=state.RESOURCE_STATE_REFUSED, held_version="1", refusal=refusal),
            status_of(type="Cluster", name="c", state=state.RESOURCE_STATE_SENT, held_version="1", sent_revision=8),
            status_of(type="Cluster", name="d", state=state.RESOURCE_STATE_WAITING, held_version="1"),
            status_of(type="Cluster", name="e", state=state.RESOURCE_STATE_WAITING, target_version="2"),
            status_of(type="Cluster", name="f", state=state.RESOURCE_STATE_WAITING, target_version="2", refusal=refusal),
            status_of(type="Secret", name="g", state=state.RESOURCE_STATE_NOT_ASKED, target_version="2", diff_note="secret"),
        ],
        omitted=3,
    )
    report = printed(status, capsys)
    assert [line.rstrip() for line in report.splitlines() if line.strip()] == [
        "TYPE     RESOURCES  SYNCED  STALE  REFUSED  UNASKED  NEWEST",
        "Cluster  7          0       4      2        1        2h",
        "It subscribes to 2 names that no resource has.",
        "Cluster a was refused 5m ago, of revision 7: bad",
        "Cluster b its removal was refused 5m ago, of revision 7: the same error as above",
        "Cluster c its removal was sent with revision 8 and is not ACKed yet",
        "Cluster d will be removed once the node no longer uses it",
        "Cluster e is not sent yet: it waits for a resource that it needs, or for the answer to an earlier response",
        "Cluster f will be sent again; it was refused 5m ago: bad",
        "Secret g is available, but the node has not subscribed to it",
        "    holds nothing, should hold 2; not compared: secret",
        "and 3 resources more; `--all -o json` lists up to 10,000",
    ]


def test_a_node_that_is_gone_or_has_subscribed_to_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    gone = node_pb2.NodeStatus(node=node_pb2.Node(state=node_pb2.NODE_STATE_GONE))
    assert "what it holds now is unknown" in printed(gone, capsys)
    assert "It has subscribed to nothing" in printed(node_pb2.NodeStatus(), capsys)


def test_an_inexact_time_is_shown_as_a_minimum(capsys: pytest.CaptureFixture[str]) -> None:
    synced = node_pb2.ResourceStatus(
        type="Listener", name="l", state=node_pb2.RESOURCE_STATE_SYNCED, held_version="1", take_time=ago(65)
    )
    status = node_pb2.NodeStatus(types=[node_pb2.TypeStatus(type="Listener", synced=1)], resources=[synced])
    assert "synced  1        1m or more" in printed(status, capsys, every=True)
    synced.take_time_exact = True
    status.resources[0].CopyFrom(synced)
    assert "or more" not in printed(status, capsys, every=True)


def test_eighty_columns_are_enough(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    status_when_settled(run, resources=0)
    counts = [line for line in run("nodes", "edge-1").out.splitlines() if line.startswith(("TYPE", "ScopedRoute"))]
    assert counts
    assert all(len(line.rstrip()) <= 80 for line in counts)


def test_a_node_that_is_held_back_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """It was shown as holding nothing, and as waiting for resources that it needs."""
    waiting = node_pb2.ResourceStatus(type="Cluster", name="c", state=node_pb2.RESOURCE_STATE_WAITING, target_version="2")
    status = node_pb2.NodeStatus(
        node=node_pb2.Node(held_back=True), types=[node_pb2.TypeStatus(type="Cluster", waiting=1)], resources=[waiting]
    )
    report = printed(status, capsys)
    assert "It is sent nothing while it is held back." in report
    assert "is not sent yet" not in report
