"""The receipt of a change: which nodes hold it, which refused it, and which are gone."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from controlplane.cli import node_table, receipt, wait
from controlplane.cli.exits import Exit
from controlplane.envoy_types import LISTENER, ROUTES
from tests.cli.conftest import MINIMAL, Run, Server, until_state


def test_a_switch_without_nodes_ends_at_once(run: Run, applied: Server) -> None:
    result = run("switch", "iris", "--to", "green")
    assert (result.code, result.err) == (0, "")
    assert "No Envoy is connected. Revision 2 is saved and goes to the next Envoy that connects." in result.out


CONNECTED = ("--require", "connected")


def between_connections(run: Run, server: Server, *nodes: str) -> None:
    """Connect nodes, wait until they are in sync, and disconnect them."""
    for node in nodes:
        server.connect(node)
        until_state(run, node, "NODE_STATE_SYNCED")
    server.wait(server.clients.aclose())
    for node in nodes:
        until_state(run, node, "NODE_STATE_GONE")


def test_a_recently_disconnected_node_is_a_warning(run: Run, applied: Server) -> None:
    between_connections(run, applied, "edge-1")
    result = run("switch", "iris", "--to", "green", *CONNECTED)
    assert (result.code, "No Envoy is connected" in result.out) == (0, True)
    warning = r"Warning: 1 node disconnected and does not hold it: nodes/edge-1 \([0-9.]+ m?s before\)\n"
    assert re.search(warning, result.out)
    applied.connect("edge-2")
    result = run("switch", "iris", "--to", "blue", *CONNECTED)
    assert "Held by 1 of 1 node" in result.out
    assert re.search(warning, result.out)
    # A switch that changes nothing warns as well.
    assert re.search(warning, run("switch", "iris", "--to", "blue", *CONNECTED).out)
    receipt_ = run("switch", "iris", "--to", "green", "-o", "json", *CONNECTED).json
    assert [(n["name"], n["state"], n["heldRevision"]) for n in receipt_["disconnectedNodes"]] == [
        ("nodes/edge-1", "NODE_STATE_GONE", "1"),
    ]
    # After it has reconnected, it holds the revision.
    applied.connect("edge-1")
    result = run("switch", "iris", "--to", "blue")
    assert "Held by 2 of 2 nodes" in result.out
    assert "Warning" not in result.out
    assert run("switch", "iris", "--to", "green", "-o", "json").json["disconnectedNodes"] == []


def test_only_a_few_disconnected_nodes_are_named(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    between_connections(run, applied, "a", "b", "c", "d", "e")
    out = run("switch", "iris", "--to", "green", *CONNECTED).out
    named = r"(nodes/[a-e] \([0-9.]+ m?s before\)(, )?){3}"
    assert re.search(rf"Warning: 5 nodes disconnected and do not hold it: {named} and 2 more\n", out)
    # A node that disconnected long before is not named.
    monkeypatch.setattr(wait, "_RECENT", -60)
    assert "Warning" not in run("switch", "iris", "--to", "blue", *CONNECTED).out


def test_a_node_that_is_gone_is_named_and_has_an_exit_code_of_its_own(
    run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "_RECONNECT_TIME", 0.2)
    between_connections(run, applied, "edge-1", "edge-2")
    applied.connect("edge-3")
    result = run("switch", "iris", "--to", "green")
    assert (result.code, result.err) == (
        Exit.INCOMPLETE,
        "Error: revision 2 was made, but not every node holds it: 2 nodes are gone\n",
    )
    assert "Held by 1 of 3 nodes" in result.out
    assert "    nodes/edge-1, nodes/edge-2  are gone (not connected) and held revision 1 before\n" in result.out
    assert "`turnout nodes forget NODE`" in result.out
    assert "Revision 2. Nodes: 1 in sync, 0 behind, 0 refusing, 2 gone; 1 of 3 hold it" in run("status").out
    # A node that is forgotten does not count any more.
    assert run("nodes", "forget", "edge-1", "edge-2").out == "Forgot 2 nodes. A node that connects again is a new node.\n"
    result = run("switch", "iris", "--to", "blue")
    assert (result.code, "Held by 1 of 1 node" in result.out) == (0, True)


def test_a_gateway_that_expects_more_nodes_is_named(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    expecting = MINIMAL.replace("port: 10000\n", "port: 10000\n    expected_nodes: 2\n")
    assert expecting != MINIMAL
    result = run("apply", "--wait", "--timeout", "0.5", "-f", "-", stdin=expecting)
    assert (result.code, "a gateway has fewer nodes than it expects" in result.err) == (Exit.INCOMPLETE, True)
    assert re.search(r"\n    gateways/\w+ expects 2 nodes; held by 1\n", result.out)
    assert "NODES_TOO_FEW" in run("status").out
    applied.connect("edge-2")
    result = run("switch", "iris", "--to", "green")
    assert (result.code, "Held by 2 of 2 nodes" in result.out) == (0, True)


def test_a_refusal_exits_with_8_and_the_error_text(run: Run, applied: Server) -> None:
    refusing = False
    applied.connect("good")
    applied.connect("bad", refuse=lambda type_url: "no such thing as green" if refusing and type_url == ROUTES else "")
    refusing = True
    result = run("switch", "iris", "--to", "green", "--timeout", "20")
    assert result.code == Exit.REFUSED
    assert "Held by 1 of 2 nodes" in result.out
    assert "nodes/bad  refused RouteConfiguration iris: no such thing as green" in result.out
    assert "1 node refused it" in result.err
    status = run("status")
    assert "    nodes/bad refuses RouteConfiguration iris of revision 2: no such thing as green\n" in status.out


def test_equal_refusals_are_printed_once(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = False

    def refuse(error: str) -> Callable[[str], str]:
        return lambda type_url: error if refusing and type_url == ROUTES else ""

    for i in range(25):
        applied.connect(f"bad-{i:02}", refuse=refuse("no such thing as green"))
    for other in ("odd", "other"):
        applied.connect(other, refuse=refuse(f"I am {other}"))
    refusing = True
    result = run("switch", "iris", "--to", "green", "--timeout", "20")
    assert result.code == Exit.REFUSED
    many = "25 nodes (nodes/bad-00, nodes/bad-01, nodes/bad-02 and 22 more)"
    assert f"    {many}  refused RouteConfiguration iris: no such thing as green\n" in result.out
    assert "    nodes/odd  refused RouteConfiguration iris: I am odd\n" in result.out
    table = run("nodes").out
    assert f"\n{many} refuse RouteConfiguration iris of revision 2:\n    no such thing as green\n" in table
    assert "\nnodes/odd refuses RouteConfiguration iris of revision 2:\n    I am odd\n" in table
    assert table.count("no such thing as green") == 1
    assert "27 refusals: the nodes keep using what they had. `turnout nodes NODE` shows one of them.\n" in table
    page = run("status").out
    assert f"    {many} refuse RouteConfiguration iris of revision 2: no such thing as green\n" in page
    assert page.count("no such thing as green") == 1
    assert len(run("status", "-o", "json").json["nodes"]) == 27

    # Entries beyond the limit are counted.
    monkeypatch.setattr(receipt, "_MAX_LINES", 1)
    monkeypatch.setattr(node_table, "MAX_REFUSALS", 1)
    assert "\nand 2 more; `turnout nodes -o json` has every refusal\n" in run("nodes").out
    # If the server's list is cut, the command asks for the other nodes.
    monkeypatch.setattr(wait, "_WATCHED_NODES", 10)
    out = run(
        "apply", "--wait", "-f", "-", stdin=MINIMAL.replace("8002", "8003").replace("    split: {blue: 10000}\n", "")
    ).out
    assert "Held by 27 of 27 nodes" in out
    assert f"    {many} still refuse RouteConfiguration iris since revision 2: no such thing as green\n" in out
    assert "    and 2 nodes more; `turnout status` shows what each refuses, `turnout nodes` lists all\n" in out


def test_an_older_refusal_is_a_warning(run: Run, applied: Server) -> None:
    refusing = False
    applied.connect("good")
    applied.connect("bad", refuse=lambda type_url: "cannot bind" if refusing and type_url == LISTENER else "")
    refusing = True

    def moved(port: int) -> str:
        return MINIMAL.replace("port: 10000", f"port: {port}").replace("    split: {blue: 10000}\n", "")

    result = run("apply", "--wait", "--allow-cut", "-f", "-", stdin=moved(10001))
    assert (result.code, "1 node refused it and keeps what it had" in result.err) == (Exit.REFUSED, True)
    result = run("switch", "iris", "--to", "green", "--timeout", "20")
    assert (result.code, result.err) == (0, "")
    assert "Held by 2 of 2 nodes; commit to last ACK" in result.out
    assert re.search(r"nodes/bad still refuses Listener .+ since revision 2: cannot bind", result.out)
    assert re.search(r"nodes/bad refuses Listener .+ of revision 2:", run("status").out)
    # Every place has the same definition of "holds".
    assert "Revision 3. Nodes: 1 in sync, 0 behind, 1 refusing, 0 gone; 2 of 2 hold it" in run("status").out
    nodes = run("nodes", "-o", "json").json
    assert [(n["name"], n["heldRevision"]) for n in nodes["nodes"]] == [("nodes/bad", "3"), ("nodes/good", "3")]
    assert (nodes["summary"]["holding"], nodes["summary"]["counted"]) == (2, 2)
    # A second refusal ends the wait again.
    result = run("apply", "--wait", "--allow-cut", "-f", "-", stdin=moved(10002))
    assert result.code == Exit.REFUSED
