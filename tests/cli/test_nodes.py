"""nodes and status, on a real control plane with honest xDS clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from controlplane.cli.exits import Exit
from controlplane.envoy_types import CLUSTER
from tests.cli.conftest import Run, Server
from tests.cli.test_switch import until_state

TURNOUT = str(Path(sys.executable).parent / "turnout")


def test_nodes(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    applied.connect("eu/edge-2", "sotw")
    table = run("nodes").out
    assert "nodes/edge-1" in table
    assert "nodes/eu%2Fedge-2" in table
    assert "sotw" in table
    shown = run("nodes", "-o", "json").json
    assert shown["summary"]["behind"] + shown["summary"]["synced"] == 2
    assert run("nodes", "eu/edge-2", "-o", "name").out == "nodes/eu%2Fedge-2\n"
    assert run("get", "nodes", "edge-1", "-o", "json").json["nodes"][0]["id"] == "edge-1"
    assert run("nodes", "none").code == Exit.NOT_FOUND


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


def test_what_a_client_made_up_makes_no_lines_of_its_own(run: Run, applied: Server) -> None:
    """What it asks for and there is not, it is told so, and can refuse."""
    said: SimpleQueue[discovery_pb2.DeltaDiscoveryRequest | None] = SimpleQueue()
    with grpc.insecure_channel(f"127.0.0.1:{applied.app.xds_port}") as channel:
        answers = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources(iter(said.get, None))
        for type_url in (CLUSTER, "x/y\nError: forged"):
            request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=["a\nError: forged"])
            request.node.id = "liar"
            request.initial_resource_versions["b\nError: forged"] = "1\nError: forged"
            said.put(request)
            refusal = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=next(answers).nonce)
            refusal.error_detail.message = "no\nError: forged"
            said.put(refusal)
        until_state(run, "liar", "NODE_STATE_REFUSING")
        for command in (["nodes"], ["nodes", "liar"], ["nodes", "liar", "--all"], ["status"]):
            out = run(*command).out
            assert "liar" in out
            assert not [line for line in out.splitlines() if line.startswith("Error")], out
        said.put(None)


def test_several_streams_of_one_node_are_counted(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    assert "×" not in run("nodes").out
    applied.connect("edge-1")
    assert "delta ×2" in run("nodes").out


def test_a_node_is_asked_to_connect_anew(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    done = run("nodes", "edge-1", "--reconnect")
    assert (done.code, done.err) == (0, "")
    assert done.out == "Ended 1 stream of nodes/edge-1. The node connects again within seconds.\n"
    for args, code, said in (
        (["none", "--reconnect"], Exit.NOT_FOUND, "nodes/none is not connected"),
        (["--reconnect"], Exit.USAGE, "needs the name of one node"),
    ):
        done = run("nodes", *args)
        assert (done.code, said in done.err) == (code, True)


def test_status(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    run("split", "iris", "blue=90%", "green=10%")
    table = run("status").out
    assert "Revision 2. Nodes: 1 in sync, 0 behind, 0 refusing, 0 gone" in table
    assert "blue 90%, green 10%" in table
    shown = run("status", "-o", "json").json
    assert shown["models"][0]["split"] == {"blue": 9000, "green": 1000}
    assert shown["summary"]["synced"] == 1
    assert shown["nodes"] == []


def test_a_node_that_nothing_selects_is_told_of(run: Run, applied: Server, minimal: Path) -> None:
    applied.connect("edge-1")
    said = "nodes/edge-1: no gateway selects it: edge wants cluster in [elsewhere]"
    assert said not in run("nodes").out
    minimal.write_text(minimal.read_text().replace("port: 10000", "port: 10000\n    nodes: {clusters: [elsewhere]}"))
    assert run("apply", "-f", minimal, "--force").code == 0
    assert said in run("nodes").out
    assert said in run("nodes", "edge-1").out
    assert said in run("status").out


def test_watch_is_one_object_a_line_until_ctrl_c(run: Run, applied: Server) -> None:
    command = [TURNOUT, "status", "--watch", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            first = json.loads(process.stdout.readline())
            assert first["models"][0]["split"] == {"blue": 10000}
            assert run("switch", "iris", "--to", "green", "--no-wait").code == 0
            second = next(seen for line in process.stdout if (seen := json.loads(line))["summary"]["revision"] == "2")
            assert second["models"][0]["split"] == {"green": 10000}
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == Exit.INTERRUPTED
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_a_server_that_goes_away_ends_a_watch_with_6(run: Run, applied: Server) -> None:
    command = [TURNOUT, "nodes", "--watch", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline())["summary"]["revision"] == "1"
            applied.wait(applied.app.stop(0))
            assert process.wait(20) in (Exit.UNAVAILABLE, Exit.OK)
        finally:
            process.kill()
