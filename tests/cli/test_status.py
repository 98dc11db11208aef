"""`turnout status`, on a real control plane with xDS clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess

from controlplane.cli.exits import CheckExit, Exit
from controlplane.envoy_types import ROUTES
from controlplane.xds.events import LoadReported, ReporterIdentified
from tests.cli.conftest import TURNOUT, Run, Server, until_state
from tests.test_traffic import load


def test_status(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    run("split", "iris", "blue=90%", "green=10%")
    table = run("status").out
    assert "Revision 2. Nodes: 1 in sync, 0 behind, 0 refusing, 0 gone" in table
    assert "blue 90%, green 10%" in table
    report = run("status", "-o", "json").json
    assert report["models"][0]["split"] == {"blue": 9000, "green": 1000}
    assert report["summary"]["synced"] == 1
    assert report["nodes"] == []


def test_watch_prints_one_object_a_line_until_ctrl_c(run: Run, applied: Server) -> None:
    command = [TURNOUT, "status", "--watch", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            first = json.loads(process.stdout.readline())
            assert first["models"][0]["split"] == {"blue": 10000}
            assert run("switch", "iris", "--to", "green", "--no-wait").code == 0
            second = next(update for line in process.stdout if (update := json.loads(line))["summary"]["revision"] == "2")
            assert second["models"][0]["split"] == {"green": 10000}
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == Exit.INTERRUPTED
            assert process.stderr.read() == ""
        finally:
            process.kill()


def fail(applied: Server, cluster: str = "iris/blue") -> None:
    """Let `edge-1` report that every request to a cluster failed."""

    async def report() -> None:
        events = applied.app.events
        events.report(9_001, ReporterIdentified("edge-1"))
        events.report(9_001, LoadReported((load(cluster, issued=100, failed=100),)))

    applied.wait(report())


def test_status_is_not_fine_while_a_version_answers_with_errors(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    fine = run("status", "--check", "--ignore", "TRAFFIC_UNKNOWN")
    assert (fine.code, fine.out) == (CheckExit.OK, "OK: revision 1 is held by 1 node; no requests now\n")
    fail(applied)
    page = run("status").out
    assert page.splitlines()[0] == "CRITICAL: 1 problem: VERSION_FAILS models/iris"
    assert "    models/iris: 100% of the tries at version blue end with an error (10.0 tries/s)\n" in page
    assert page.index("VERSION_FAILS") < page.index("Revision 1. Nodes: 1 in sync") < page.index("blue 100%")
    only = run("status", "--problems").out
    assert page.startswith(only)
    assert "Revision 1." not in only
    checked = run("status", "--check")
    assert (checked.code, checked.out) == (CheckExit.CRITICAL, only)
    assert run("status", "--check", "--ignore", "VERSION_FAILS").code == CheckExit.OK


def test_check_follows_the_level_and_the_filters(run: Run, applied: Server) -> None:
    assert run("status", "--check").code == CheckExit.WARNING
    refusing = False
    applied.connect("edge-1", refuse=lambda type_url: "no such thing" if refusing and type_url == ROUTES else "")
    refusing = True
    run("switch", "iris", "--to", "green", "--no-wait")
    until_state(run, "edge-1", "NODE_STATE_REFUSING")
    result = run("status", "--check", "-o", "json")
    assert (result.code, result.json["level"]) == (CheckExit.WARNING, "STATUS_LEVEL_WARNING")
    assert [p["reason"] for p in result.json["problems"]] == ["NODES_REFUSE"]
    assert run("status", "--check", "-o", "name").out == "nodes/edge-1\n"
    nothing = run("status", "--check", "--state", "gone")
    assert (nothing.code, nothing.out) == (CheckExit.OK, "OK: no problem matches the filter; 1 more exists\n")
    assert run("status", "--check", "--error", "NO SUCH").code == CheckExit.WARNING
    assert "nodes/edge-1" in run("status", "--state", "refusing", "--error", "no such").out
    assert run("status", "--check", "--model", "iris").code == CheckExit.WARNING


def test_check_of_a_server_that_can_not_be_asked_is_unknown(run: Run, applied: Server) -> None:
    port = applied.app.api_port
    applied.stop()
    result = run("status", "--check", "--api", f"127.0.0.1:{port}")
    assert result.code == CheckExit.UNKNOWN
    assert result.out.startswith(f"UNKNOWN: nothing listens at 127.0.0.1:{port}\n")
    assert run("status", "--api", f"127.0.0.1:{port}").code == Exit.UNAVAILABLE


def test_filters_that_are_wrong(run: Run, applied: Server) -> None:
    assert run("status", "--model", "rose").code == Exit.NOT_FOUND
    assert run("status", "--check", "--watch").code == Exit.USAGE
    for options in (["--check"], [], ["--problems"]):
        unknown = run("status", *options, "--ignore", "NOISE")
        assert (unknown.code, unknown.out) == (Exit.USAGE, "")
        assert "--ignore: 'NOISE' is not a reason" in " ".join(unknown.err.replace("'--ignore'", "--ignore").split())
