"""switch, split, undo, on a real control plane with honest xDS clients."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from controlplane.cli import node_table, receipt, wait
from controlplane.cli.exits import Exit
from controlplane.cli.switch import basis_points
from controlplane.envoy_types import LISTENER, ROUTES
from tests.cli.conftest import MINIMAL, Run, Server

TWO = MINIMAL + MINIMAL.partition("models:\n")[2].replace("iris", "wine")


def split_of(run: Run, model: str = "iris") -> dict[str, int]:
    split: dict[str, int] = run("get", "models", model, "-o", "json").json["models"][0]["split"]
    return split


def test_switch_ends_with_a_receipt(run: Run, applied: Server) -> None:
    for node in ("edge-1", "edge-2"):
        applied.connect(node)
    applied.connect("edge-3", "sotw")
    done = run("switch", "iris", "--to", "green", "--reason", "better")
    assert (done.code, done.err) == (0, "")
    assert "Revision 2 by ada@tests: better" in done.out
    assert "split: blue 10000 -> green 10000" in done.out
    assert "Envoys are sent: 1 RouteConfiguration, 0 Listeners, 3 nodes" in done.out
    assert "Held by 3 of 3 nodes; commit to last ACK " in done.out
    for node in ("edge-1", "edge-2", "edge-3"):
        assert f"nodes/{node}  " in done.out
    assert split_of(run) == {"green": 10000}


def test_switch_as_json(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    done = run("switch", "iris=green", "-o", "json")
    assert done.json["changed"] is True
    assert done.json["revision"]["action"] == "ACTION_SWITCH"
    assert done.json["models"][0]["split"] == {"green": 10000}
    assert done.json["progress"]["holding"] == 1
    again = run("switch", "models/iris", "--to", "green", "-o", "json")
    assert (again.code, again.json["changed"]) == (0, False)


def test_several_models_in_one_revision(run: Run, server: Server) -> None:
    assert run("apply", "-f", "-", stdin=TWO).code == 0
    assert run("switch", "iris", "wine=green", "--to", "green", "-o", "name").out == "revisions/2\n"
    assert split_of(run, "iris") == split_of(run, "wine") == {"green": 10000}


def test_without_nodes_nobody_is_waited_for(run: Run, applied: Server) -> None:
    done = run("switch", "iris", "--to", "green")
    assert (done.code, done.err) == (0, "")
    assert "No Envoy is connected. Revision 2 is saved and goes to the next Envoy that connects." in done.out


def between_connections(run: Run, server: Server, *nodes: str) -> None:
    """Nodes connect, hold what there is, and leave."""
    for node in nodes:
        server.connect(node)
        until_state(run, node, "NODE_STATE_SYNCED")
    server.wait(server.clients.aclose())
    for node in nodes:
        until_state(run, node, "NODE_STATE_GONE")


def until_state(run: Run, node: str, state: str) -> None:
    deadline = time.monotonic() + 20
    while run("nodes", node, "-o", "json").json["status"]["node"]["state"] != state:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_node_that_left_just_before_is_told_of(run: Run, applied: Server) -> None:
    between_connections(run, applied, "edge-1")
    done = run("switch", "iris", "--to", "green")
    assert (done.code, "No Envoy is connected" in done.out) == (0, True)
    said = r"Warning: 1 node disconnected and does not hold it: nodes/edge-1 \([0-9.]+ m?s before\)\n"
    assert re.search(said, done.out)
    applied.connect("edge-2")
    done = run("switch", "iris", "--to", "blue")
    assert "Held by 1 of 1 node" in done.out
    assert re.search(said, done.out)
    # Nothing changes, and it is as far away.
    assert re.search(said, run("switch", "iris", "--to", "blue").out)
    shown = run("switch", "iris", "--to", "green", "-o", "json").json
    assert [(n["name"], n["state"], n["heldRevision"]) for n in shown["disconnectedNodes"]] == [
        ("nodes/edge-1", "NODE_STATE_GONE", "1"),
    ]
    # Back again, it holds it.
    applied.connect("edge-1")
    done = run("switch", "iris", "--to", "blue")
    assert "Held by 2 of 2 nodes" in done.out
    assert "Warning" not in done.out
    assert run("switch", "iris", "--to", "green", "-o", "json").json["disconnectedNodes"] == []


def test_of_many_that_left_a_few_are_named(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    between_connections(run, applied, "a", "b", "c", "d", "e")
    out = run("switch", "iris", "--to", "green").out
    named = r"(nodes/[a-e] \([0-9.]+ m?s before\)(, )?){3}"
    assert re.search(rf"Warning: 5 nodes disconnected and do not hold it: {named} and 2 more\n", out)
    # Who left long before has gone for good.
    monkeypatch.setattr(wait, "_RECENT", -60)
    assert "Warning" not in run("switch", "iris", "--to", "blue").out


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["switch", "wine", "--to", "green"], 4, "models/wine does not exist"),
        (["switch", "iris", "--to", "red"], 3, "there is no version 'red'"),
        (["switch", "iris", "--to", "green", "--etag", "99"], 5, "has changed since it was read"),
        (["split", "iris", "blue=50%", "green=40%"], 3, "must sum to 10,000"),
        (["undo", "--to", "99"], 4, "99"),
    ],
)
def test_refused(run: Run, applied: Server, args: list[str], code: int, said: str) -> None:
    done = run(*args)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert run("history", "-o", "json").json["revisions"][0]["number"] == "1"


def test_dry_run_moves_nothing(run: Run, applied: Server) -> None:
    for args in (["switch", "iris", "--to", "green"], ["split", "iris", "blue=1", "green=9999"], ["undo"]):
        done = run(*args, "--dry-run")
        assert done.code == 0
        assert "Dry run: nothing was changed." in done.err
        assert "iris" in done.out
    assert split_of(run) == {"blue": 10000}


def test_split(run: Run, applied: Server) -> None:
    assert run("split", "iris", "blue=99.5%", "green=50").code == 0
    assert split_of(run) == {"blue": 9950, "green": 50}
    assert "blue 99.5%, green 0.5%" in run("get", "models").out


@pytest.mark.parametrize(("value", "expected"), [("9000", 9000), ("90%", 9000), ("0.01%", 1), ("0", 0), ("100%", 10000)])
def test_basis_points(value: str, expected: int) -> None:
    assert basis_points(f"blue={value}", value) == expected


def test_undo_and_redo(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    run("switch", "iris", "--to", "green")
    done = run("undo", "--reason", "slow")
    assert done.code == 0
    assert "Revision 3 by ada@tests: slow" in done.out
    assert "Held by 1 of 1 node; commit to last ACK" in done.out
    assert split_of(run) == {"blue": 10000}
    assert run("undo").code == 0
    assert split_of(run) == {"green": 10000}
    assert run("undo", "--to", "1").code == 0
    assert split_of(run) == {"blue": 10000}


def test_nothing_to_undo(run: Run, server: Server) -> None:
    done = run("undo")
    assert done.code in (Exit.CONFLICT, Exit.NOT_FOUND)
    assert "no revision" in done.err


def test_a_refusal_is_8_with_the_words(run: Run, applied: Server) -> None:
    refusing = False
    applied.connect("good")
    applied.connect("bad", refuse=lambda type_url: "no such thing as green" if refusing and type_url == ROUTES else "")
    refusing = True
    done = run("switch", "iris", "--to", "green", "--timeout", "20")
    assert done.code == Exit.REFUSED
    assert "Held by 1 of 2 nodes" in done.out
    assert "nodes/bad  refused RouteConfiguration iris: no such thing as green" in done.out
    assert "1 node refused it" in done.err
    status = run("status")
    assert "nodes/bad refuses RouteConfiguration iris of revision 2:" in status.out
    assert "no such thing as green" in status.out


def test_many_refusals_alike_are_said_once(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = False

    def refuse(words: str) -> Callable[[str], str]:
        return lambda type_url: words if refusing and type_url == ROUTES else ""

    for i in range(25):
        applied.connect(f"bad-{i:02}", refuse=refuse("no such thing as green"))
    for other in ("odd", "other"):
        applied.connect(other, refuse=refuse(f"I am {other}"))
    refusing = True
    done = run("switch", "iris", "--to", "green", "--timeout", "20")
    assert done.code == Exit.REFUSED
    many = "25 nodes (nodes/bad-00, nodes/bad-01, nodes/bad-02 and 22 more)"
    assert f"    {many}  refused RouteConfiguration iris: no such thing as green\n" in done.out
    assert "    nodes/odd  refused RouteConfiguration iris: I am odd\n" in done.out
    for command in ("status", "nodes"):
        shown = run(command).out
        assert f"\n{many} refuse RouteConfiguration iris of revision 2:\n    no such thing as green\n" in shown
        assert "\nnodes/odd refuses RouteConfiguration iris of revision 2:\n    I am odd\n" in shown
        assert shown.count("no such thing as green") == 1
        assert "27 refusals: the nodes keep using what they had. `turnout nodes NODE` shows one of them.\n" in shown
    assert len(run("status", "-o", "json").json["nodes"]) == 27

    # What is cut is counted.
    monkeypatch.setattr(receipt, "_MAX_LINES", 1)
    monkeypatch.setattr(node_table, "MAX_REFUSALS", 1)
    assert "\nand 2 more; `turnout nodes -o json` has every refusal\n" in run("status").out
    # Where the server lists only some, the others are asked for.
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

    done = run("apply", "--wait", "-f", "-", stdin=moved(10001))
    assert (done.code, "1 node refused it and keeps what it had" in done.err) == (Exit.REFUSED, True)
    done = run("switch", "iris", "--to", "green", "--timeout", "20")
    assert (done.code, done.err) == (0, "")
    assert "Held by 2 of 2 nodes; commit to last ACK" in done.out
    assert re.search(r"nodes/bad still refuses Listener .+ since revision 2: cannot bind", done.out)
    assert re.search(r"nodes/bad refuses Listener .+ of revision 2:", run("status").out)
    # Another that it refuses is refused.
    done = run("apply", "--wait", "-f", "-", stdin=moved(10002))
    assert done.code == Exit.REFUSED


def test_a_wait_that_ends_is_7(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ignored(call: object, response: object) -> None:
        return

    monkeypatch.setattr(applied.connect("silent"), "_take", ignored)
    done = run("switch", "iris", "--to", "green", "--timeout", "0.5")
    assert done.code == Exit.TIMEOUT
    assert "revision 2 was made, but not every node holds it after 0.5 s" in done.err
    assert "has not ACKed yet" in done.out
    assert split_of(run) == {"green": 10000}


def test_no_wait(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    assert "Held by" not in run("switch", "iris", "--to", "green", "--no-wait").out
