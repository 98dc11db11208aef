"""`turnout nodes`, on a real control plane with xDS clients."""

from __future__ import annotations

import json
import os
import subprocess
import time
from queue import SimpleQueue

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from controlplane.cli.exits import Exit
from controlplane.envoy_types import CLUSTER
from tests.cli.conftest import TURNOUT, Run, Server, until_state


def test_nodes(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    applied.connect("eu/edge-2", "sotw")
    table = run("nodes").out
    assert "nodes/edge-1" in table
    assert "nodes/eu%2Fedge-2" in table
    assert "sotw" in table
    fleet = run("nodes", "-o", "json").json
    assert fleet["summary"]["behind"] + fleet["summary"]["synced"] == 2
    assert run("nodes", "eu/edge-2", "-o", "name").out == "nodes/eu%2Fedge-2\n"
    assert run("get", "nodes", "edge-1", "-o", "json").json["nodes"][0]["id"] == "edge-1"
    assert run("nodes", "none").code == Exit.NOT_FOUND


def test_invented_names_of_a_client_start_no_new_lines(run: Run, applied: Server) -> None:
    """A client may subscribe to invented names. The server answers that they do not exist, and the client can refuse that."""
    requests: SimpleQueue[discovery_pb2.DeltaDiscoveryRequest | None] = SimpleQueue()
    with grpc.insecure_channel(f"127.0.0.1:{applied.app.xds_port}") as channel:
        answers = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources(iter(requests.get, None))
        for type_url in (CLUSTER, "x/y\nError: forged"):
            request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=["a\nError: forged"])
            request.node.id = "liar"
            if type_url != CLUSTER:  # a client that holds clusters of another history is held back
                request.initial_resource_versions["b\nError: forged"] = "1\nError: forged"
            requests.put(request)
            refusal = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=next(answers).nonce)
            refusal.error_detail.message = "no\nError: forged"
            requests.put(refusal)
        until_state(run, "liar", "NODE_STATE_REFUSING")
        for command in (["nodes"], ["nodes", "liar"], ["nodes", "liar", "--all"], ["status"]):
            out = run(*command).out
            assert "liar" in out
            assert not [line for line in out.splitlines() if line.startswith("Error")], out
        requests.put(None)


def test_the_names_that_a_held_back_client_invents_start_no_new_lines(run: Run, applied: Server) -> None:
    requests: SimpleQueue[discovery_pb2.DeltaDiscoveryRequest | None] = SimpleQueue()
    with grpc.insecure_channel(f"127.0.0.1:{applied.app.xds_port}") as channel:
        answers = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources(iter(requests.get, None))
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
        request.node.id = "liar"
        request.initial_resource_versions["b\nError: forged"] = "1\nError: forged"
        requests.put(request)
        deadline = time.monotonic() + 20
        while "HELD_BACK" not in run("status").out:
            assert time.monotonic() < deadline
        waited = run("switch", "iris", "--to", "blue", "--timeout", "0.2")
        for command in (["nodes"], ["nodes", "liar"], ["status"], ["status", "--problems"]):
            out = run(*command).out
            assert "liar" in out
            assert not [line for line in out.splitlines() if line.strip().startswith("Error")], out
        assert "nodes/liar  is held back and keeps what it holds of another history" in waited.out
        assert run("nodes", "adopt", "liar").out == "Adopted 1 node: sent revision 1. What it does not have is removed.\n"
        assert next(answers).type_url == CLUSTER
        requests.put(None)


def test_reconnect_ends_the_streams_of_a_node(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    result = run("nodes", "edge-1", "--reconnect")
    assert (result.code, result.err) == (0, "")
    assert result.out == "Ended 1 stream of nodes/edge-1. The node connects again within seconds.\n"
    for args, code, expected in (
        (["none", "--reconnect"], Exit.NOT_FOUND, "nodes/none is not connected"),
        (["--reconnect"], Exit.USAGE, "needs the name of one node"),
    ):
        result = run("nodes", *args)
        assert (result.code, expected in result.err) == (code, True)


def test_a_watch_for_programs_survives_a_restart(run: Run, applied: Server) -> None:
    command = [TURNOUT, "nodes", "--watch", "-o", "json"]
    port = applied.app.api_port
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert json.loads(process.stdout.readline())["summary"]["revision"] == "1"
            applied.stop()
            assert "Connection lost at" in process.stderr.readline()
            again = Server(applied.data, port)
            assert json.loads(process.stdout.readline())["summary"]["revision"] == "1"
            assert "Reconnected to" in process.stderr.readline()
            again.stop()
        finally:
            process.kill()


def test_only_nodes_that_are_not_connected_can_be_forgotten(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    result = run("nodes", "forget", "edge-1")
    assert result.code == Exit.CONFLICT
    assert "nodes/edge-1 is connected, so it can't be forgotten: stop it first" in result.err
    assert run("nodes", "forget", "nobody").code == Exit.NOT_FOUND
    for arguments in (["forget"], ["edge-1", "edge-2"], ["forget", "edge-1", "--watch"]):
        assert run("nodes", *arguments).code == Exit.USAGE
