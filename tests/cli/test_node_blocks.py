"""`turnout nodes block`, `unblock` and `blocks`."""

from __future__ import annotations

from controlplane.cli.exits import Exit
from tests.cli.conftest import Run, Server


def test_a_client_is_blocked_listed_and_unblocked(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    assert run("nodes", "blocks").err == "no client is blocked\n"
    result = run("nodes", "block", "edge-1", "--reason", "key stolen")
    assert (result.code, result.out) == (Exit.OK, "Blocked edge-1. Disconnected nodes/edge-1.\n")
    assert run("nodes", "block", "spiffe://td/web").out == "Blocked spiffe://td/web. No node of it was connected.\n"
    listed = run("nodes", "blocks").out
    assert "key stolen" in listed
    assert "ada@tests" in listed
    assert [block["client"] for block in run("nodes", "blocks", "-o", "json").json["blocks"]] == ["edge-1", "spiffe://td/web"]
    assert run("nodes", "blocks", "-o", "name").out == "edge-1\nspiffe://td/web\n"
    assert run("nodes", "unblock", "edge-1").out == "Unblocked edge-1. It may connect again.\n"
    gone = run("nodes", "unblock", "edge-1")
    assert (gone.code, "`turnout nodes blocks` lists them" in gone.err) == (Exit.NOT_FOUND, True)


def test_wrong_words_are_named(run: Run) -> None:
    for arguments in (
        ["block"],
        ["unblock"],
        ["block", "a", "b"],
        ["blocks", "a"],
        ["block", "a", "--watch"],
        ["--reason", "x"],
    ):
        assert run("nodes", *arguments).code == Exit.USAGE, arguments
