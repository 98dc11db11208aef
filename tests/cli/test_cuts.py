"""Changes that cut traffic, on the command line: on a real control plane with xDS clients."""

from __future__ import annotations

import re

import pytest

from controlplane.cli.exits import Exit
from tests.cli.conftest import MINIMAL, Run, Server

TYPO = MINIMAL.replace("port: 10000", "port: 10000\n    nodes: {ids: [egde-1]}")
LOST = "edge-1 loses its only listener 0.0.0.0:10000 with model iris"
PATH = "model iris loses its path at 0.0.0.0:10000 on edge-1"
NEEDED = r"It needs --allow-cut, or --cut-token (\S+) to be refused again if more would be cut\."


@pytest.fixture
def connected(applied: Server) -> Server:
    applied.connect("edge-1")
    return applied


def token(text: str) -> str:
    """Return the token that a text names."""
    match = re.search(NEEDED, text)
    assert match, text
    return match[1]


def test_a_typo_in_a_selector_is_refused_until_it_is_allowed(run: Run, connected: Server) -> None:
    dry = run("apply", "-f", "-", "--dry-run", stdin=TYPO)
    assert dry.code == Exit.DIFFERENCE
    assert dry.out.startswith("Dry run: nothing was changed.\nIt would be revision 2 by ada@tests\n~ gateways/edge\n")
    assert f"Would cut traffic:\n    {LOST}\n" in dry.out
    assert "Would be sent to 1 node: " in dry.out
    assert "1 Listener removed" in dry.out
    for flags in ([], ["--force"]):
        refused = run("apply", "-f", "-", *flags, stdin=TYPO)
        assert (refused.code, refused.out) == (Exit.CONFLICT, "")
        assert refused.err.startswith(f"Error: this change cuts traffic:\n    {LOST}\n")
        assert token(refused.err) == token(dry.out)
    connected.connect("edge-2")
    grown = run("apply", "-f", "-", "--cut-token", token(dry.out), stdin=TYPO)
    assert grown.code == Exit.CONFLICT
    assert "Error: this change cuts traffic on 2 nodes, not 1:\n    edge-1 and edge-2 lose their only listener" in grown.err
    done = run("apply", "-f", "-", "--allow-cut", stdin=TYPO)
    assert done.code == 0
    assert "Cut traffic:\n    edge-1 and edge-2 lose their only listener 0.0.0.0:10000 with model iris\n" in done.out


def test_a_saved_state_with_its_etags_does_not_pass(run: Run, connected: Server) -> None:
    saved = run("get", "all", "-o", "yaml").out
    assert "etag:" in saved
    edited = re.sub(r"( +)port: 10000\n", r"\g<0>\1header: {name: x-model}\n", re.sub(r" +path:\n( {4,}.*\n)+", "", saved))
    refused = run("apply", "-f", "-", stdin=edited)
    assert refused.code == Exit.CONFLICT
    assert "model iris can't be reached by path segment 3 at 0.0.0.0:10000 any more, only by header x-model" in refused.err


def test_delete_shows_what_is_lost_and_asks_only_with_permission(
    run: Run, connected: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = run("delete", "models/iris")
    assert refused.code == Exit.CONFLICT
    assert refused.err.startswith(f"Error: this change cuts traffic:\n    {PATH}\n")
    assert run("delete", "models/iris", "gateways/edge", "--yes").code == Exit.CONFLICT
    unasked = run("delete", "models/iris", "--allow-cut")
    assert unasked.code == Exit.USAGE
    assert f"Would cut traffic:\n    {PATH}\n" in unasked.err

    # While the question stands, another node connects: the answer was about one node.
    monkeypatch.setattr("controlplane.cli.delete.confirm", lambda question: connected.connect("edge-2"))
    grown = run("delete", "models/iris", "--allow-cut")
    assert grown.code == Exit.CONFLICT
    assert "Error: this change cuts traffic on 2 nodes, not 1:" in grown.err


def test_going_back_shows_what_is_lost(run: Run, connected: Server) -> None:
    wine = "models:\n" + MINIMAL.partition("models:\n")[2].replace("iris", "wine")
    assert run("apply", "-f", "-", stdin=wine).code == 0
    lost = "model wine loses its path at 0.0.0.0:10000 on edge-1"
    for command in (["revert", "2"], ["restore-state", "1"]):
        dry = run(*command, "--dry-run")
        assert dry.out.startswith("Dry run: nothing was changed.\nIt would be revision 3 by ada@tests\n")
        assert f"Would cut traffic:\n    {lost}\n" in dry.out
        for flags in ([], ["--yes"]):
            refused = run(*command, *flags)
            assert refused.code == Exit.CONFLICT
            assert f"    {lost}\n" in refused.err
    assert run("revert", "2", "--yes", "--cut-token", token(dry.out)).code == 0


def test_a_dry_run_as_data_says_so(run: Run, connected: Server) -> None:
    for command in (["switch", "iris", "--to", "green"], ["apply", "-f", "-"], ["restore-state", "0"]):
        value = run(*command, "--dry-run", "-o", "json", stdin=TYPO).json
        assert value["dryRun"] is True
    assert [loss["text"] for loss in value["impact"]["losses"]] == [LOST]
    assert run("history", "-o", "json").json["revisions"][0]["number"] == "1"


def test_many_losses_are_counted(run: Run, connected: Server) -> None:
    gateways = "gateways:\n" + "".join(f"  - {{name: g{port}, port: {port}}}\n" for port in range(11_000, 11_030))
    assert run("apply", "-f", "-", stdin=gateways).code == 0
    dry = run("revert", "2", "--dry-run").out
    assert dry.count(" loses its listener 0.0.0.0:") == 20
    assert "    and 10 more losses\n" in dry
    refused = run("revert", "2", "--yes").err
    assert "    and 10 more losses\n" in refused
