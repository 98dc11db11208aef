"""Each section of docs/at-3-am.md, played on a real server. test_at_3_am_with_envoys.py plays those that need real Envoys."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest

from controlplane.cli import going_back
from controlplane.cli.exits import Exit
from controlplane.cli.options import request_id
from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1.model_service_pb2 import GetModelRequest, ModelUndo, UndoModelsRequest
from controlplane.generated.turnout.v1.model_service_pb2_grpc import ModelServiceStub
from controlplane.store.sqlite import DATABASE
from controlplane.xds.events import ClusterLoad, LoadReported, ReporterIdentified
from tests.cli.conftest import MINIMAL, TURNOUT, Result, Run, Server, until_state
from tests.cli.played_page import Step, missing, normal, play, sections

# Sections that test_at_3_am_with_envoys.py plays.
WITH_ENVOYS = {
    "A model answers with errors",
    "A version refuses connections",
    "An Envoy refuses a change",
    "An Envoy hangs",
    "An Envoy is away",
}


def test_each_section_is_played() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [title for title in sections() if title not in WITH_ENVOYS and f'"{title}"' not in source] == []


def test_the_comparison_finds_a_line_that_is_not_printed() -> None:
    step = Step("x", ("Revision 7 by ann", "Held by 2 of 2 nodes"))
    assert missing(step, "Revision 8 by  ann\nmore\nHeld by 10 of 12 nodes\n") is None
    assert missing(step, "Held by 2 of 2 nodes\nRevision 7 by ann\n") == "Held by 2 of 2 nodes"
    assert missing(step, "Revision 7 by bob\n") == "Revision 7 by ann"
    assert normal("7a0b93c1-26 after 12.5 ms at 2026-11-28 03:00:00") == "ID-N after TIME at N N"


def serve(data: Path) -> Result:
    """Run `turnout serve`, which ends at once."""
    command = [TURNOUT, "serve", "--data", str(data), "--api", "127.0.0.1:0", "--xds", "127.0.0.1:0", "--metrics", "off"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def test_a_version_hangs(run: Run, applied: Server) -> None:
    applied.connect("edge-1")

    async def report() -> None:
        events = applied.app.events
        events.report(9_001, ReporterIdentified("edge-1"))
        for active in (40, 0):
            events.report(9_001, LoadReported((ClusterLoad("iris/green", active, 0, 0, 0, active, 2_000),)))

    assert run("switch", "iris", "--to", "green").code == 0
    applied.wait(report())
    play(run, "A version hangs")


def test_an_envoy_is_refused(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    assert run("nodes", "block", "edge-1", "--reason", "key stolen").code == 0
    play(run, "An Envoy is refused")


def test_the_store_is_lost(run: Run, tmp_path: Path, applied: Server) -> None:
    applied.stop()
    (applied.data / DATABASE).unlink()
    play(lambda *args: serve(Path(str(args[2]))), "The data directory lost its store", ("/var/lib/turnout", str(applied.data)))


def test_the_store_is_damaged(run: Run, applied: Server) -> None:
    applied.stop()
    database = applied.data / DATABASE
    content = bytearray(database.read_bytes())
    place = content.find(b"127.0.0.1")
    content[place] ^= 1
    database.write_bytes(bytes(content))
    play(lambda *args: serve(Path(str(args[2]))), "The store is damaged", ("/var/lib/turnout", str(applied.data)))


def started(data: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Start another control plane, and set TURNOUT_API to its address."""
    created = Server(data)
    monkeypatch.setenv("TURNOUT_API", created.api)
    return created


def until_problem(run: Run, reason: str) -> None:
    """Wait until `turnout status` has a problem, because the server needs a moment to see what a client holds."""
    deadline = time.monotonic() + 20
    while reason not in run("status").out:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_server_has_no_revision(run: Run, tmp_path: Path, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    held = applied.connect("edge-1").held
    applied.stop()
    other = started(tmp_path / "other", monkeypatch)
    try:
        other.connect("edge-1", held=held)
        until_problem(run, "NO_REVISION")
        play(run, "The server has no revision")
    finally:
        other.stop()


def test_a_backup_was_restored(run: Run, tmp_path: Path, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    applied.stop()
    shutil.copytree(applied.data, tmp_path / "restored")
    later = started(applied.data, monkeypatch)
    held = later.connect("edge-1").held
    assert run("switch", "iris", "--to", "green").code == 0
    later.stop()
    other = started(tmp_path / "restored", monkeypatch)
    try:
        other.connect("edge-1", held=held)
        until_problem(run, "FOREIGN_VERSIONS")
        play(run, "A backup was restored")
    finally:
        other.stop()


def test_a_node_is_held_back(run: Run, tmp_path: Path, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is lost, and a file without a model of before is applied before the node is back."""
    wine = tmp_path / "wine.yaml"
    wine.write_text(MINIMAL[MINIMAL.index("models:") :].replace("iris", "wine"))
    assert run("apply", "-f", wine).code == 0
    held = applied.connect("edge-1").held
    applied.stop()
    new = started(tmp_path / "new", monkeypatch)
    try:
        assert run("apply", "-f", tmp_path / "minimal.yaml").code == 0
        new.connect("edge-1", held=held)
        until_problem(run, "HELD_BACK")
        play(run, "A node is held back")
        until_state(run, "edge-1", "NODE_STATE_SYNCED")
        assert "HELD_BACK" not in run("status").out
        result = run("nodes", "adopt", "edge-1")
        assert (result.code, "nodes/edge-1 is not held back" in result.err) == (Exit.CONFLICT, True)
    finally:
        new.stop()


def test_the_disk_is_full(run: Run, applied: Server) -> None:
    """SQLite's own limit causes the same error as a full disk, in the same calls."""
    applied.connect("edge-1")

    def limit(pages: int) -> None:
        runner = applied.app._store._runner
        applied.wait(runner.read(lambda file: file._db.execute(f"PRAGMA max_page_count = {pages}")))

    limit(1)
    while run("split", "iris", "blue=50%", "green=50%").code == 0 and run("switch", "iris", "--to", "blue").code == 0:
        pass  # until the last page is full
    play(run, "The disk is full", ("/var/lib/turnout", str(applied.data)))
    limit(10_000)
    assert run("switch", "iris", "--to", "green").code == 0
    assert "STORE_FAILS" not in run("status").out


def print_nothing(handler: object, form: str, *args: object) -> None:
    """Take the place of `log_message`, which would write into the output of the command."""


def test_the_control_plane_can_not_be_reached(run: Run, applied: Server) -> None:
    other = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (BaseHTTPRequestHandler,), {"log_message": print_nothing}))
    threading.Thread(target=other.serve_forever, daemon=True).start()
    nobody, xds = free_port(), applied.app.xds_port
    ports = {18080: nobody, 18000: xds, 8080: other.server_address[1]}
    try:
        title = "The control plane can't be reached"
        play(run, title, *((f"turnout.example:{there}", f"127.0.0.1:{here}") for there, here in ports.items()))
    finally:
        other.shutdown()
        other.server_close()


def test_a_change_is_refused_because_it_cuts_traffic(run: Run, tmp_path: Path, applied: Server) -> None:
    applied.connect("edge-1")
    file = tmp_path / "edge.yaml"
    file.write_text("gateways: [{name: edge, port: 10000, nodes: {ids: [egde-1]}}]\n")
    play(run, "A change is refused: CUTS_TRAFFIC", ("edge.yaml", str(file)))


def test_somebody_else_was_faster(run: Run, tmp_path: Path, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    applied.connect("edge-1")
    assert run("switch", "iris", "--to", "green", "--reason", "green is better").code == 0
    file = tmp_path / "iris.yaml"
    file.write_text(run("get", "models", "iris", "-o", "yaml").out)

    def undo_as_bob() -> str:
        """Undo the switch after ada's command has read the model, and before it makes its own change."""
        with grpc.insecure_channel(address) as channel:
            models = ModelServiceStub(channel)
            etag = models.GetModel(GetModelRequest(name="models/iris")).model.etag
            undo = UndoModelsRequest(undos=[ModelUndo(model="models/iris", etag=etag)], reason="errors since the switch")
            models.UndoModels(undo, metadata=(("x-turnout-author", "bob@tests"),))
        return request_id()

    address = applied.api
    with monkeypatch.context() as patched:
        patched.setattr(going_back, "request_id", undo_as_bob)
        play(run, "Somebody else was faster", ("iris.yaml", str(file)))


def test_who_changed_what_and_how_to_go_back(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    applied.connect("edge-1")
    monkeypatch.setenv("TURNOUT_AUTHOR", "bob@tests")
    assert run("switch", "iris", "--to", "green", "--reason", "CHG-31337").code == 0
    monkeypatch.setenv("TURNOUT_AUTHOR", "ada@tests")
    play(run, "Who changed what, and how to go back")
