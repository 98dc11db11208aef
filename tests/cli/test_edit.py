"""`turnout edit`, with a script as the editor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controlplane.cli.exits import Exit
from tests.cli.conftest import MINIMAL, TURNOUT, Run, Server, split_of
from tests.probe.servers import closed_port


class Editor:
    """An editor whose n-th call replaces texts in the file, and keeps what it was shown."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "editor"
        self.calls: list[str] = []

    def does(self, *steps: str) -> None:
        """Set a shell command for each call; `$1` is the file. Further calls change nothing."""
        for old in self.folder.glob("*.seen"):
            old.unlink()
        cases = "".join(f"{i}) {step};;\n" for i, step in enumerate(steps))
        count = f"n=$(ls {self.folder} | grep -c seen)"
        self.script.write_text(f'#!/bin/sh\n{count}\ncp "$1" {self.folder}/$n.seen\ncase $n in\n{cases}esac\n')
        self.script.chmod(0o755)

    def seen(self) -> list[str]:
        """Return the file as each call found it."""
        return [path.read_text() for path in sorted(self.folder.glob("*.seen"))]


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Editor:
    folder = tmp_path / "editor-calls"
    folder.mkdir()
    created = Editor(folder)
    monkeypatch.setenv("EDITOR", str(created.script))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return created


def kept_file(err: str) -> Path:
    match = re.search(r"Your edit is kept in (\S+);", err)
    assert match is not None, err
    return Path(match[1])


def test_an_edit_is_applied(run: Run, applied: Server, editor: Editor, tmp_path: Path) -> None:
    editor.does("sed -i 's/blue: 10000/green: 100%/' \"$1\"")
    result = run("edit", "models/iris", "--reason", "by hand")
    assert (result.code, result.err) == (0, "")
    assert "Revision 2 by ada@tests: by hand" in result.out
    assert split_of(run) == {"green": 10000}
    (shown,) = editor.seen()
    assert "name: models/iris" in shown
    assert "etag:" in shown
    assert list(tmp_path.glob("turnout-edit-*")) == []


def test_an_edit_can_wait_for_connected_nodes_only(run: Run, applied: Server, editor: Editor) -> None:
    editor.does("sed -i 's/blue: 10000/green: 100%/' \"$1\"")
    result = run("edit", "models/iris", "--wait", "--require", "connected")
    assert (result.code, result.err) == (0, "")
    assert "No Envoy is connected." in result.out


def test_an_edit_can_be_made_without_a_probe(run: Run, server: Server, tmp_path: Path, editor: Editor) -> None:
    editor.does("sed -i 's/blue: 10000/green: 100%/' \"$1\"", "sed -i 's/green: 10000/blue: 100%/' \"$1\"")
    text = MINIMAL.replace("8001", str(closed_port())).replace("8002", str(closed_port()))
    server = Server(tmp_path / "probing", probe=True)
    try:
        assert run("--api", server.api, "apply", "-f", "-", "--no-probe", stdin=text).code == 0
        assert "Warning: as seen from the control plane, iris/green" in run("--api", server.api, "edit", "models/iris").out
        result = run("--api", server.api, "edit", "models/iris", "--no-probe")
        assert "iris" in result.out
        assert "Warning" not in result.out
    finally:
        server.stop()


def test_an_unchanged_or_empty_file_changes_nothing(run: Run, applied: Server, editor: Editor) -> None:
    for step in ("true", "echo '# a comment' >> \"$1\"", ': > "$1"'):
        editor.does(step)
        result = run("edit", "model", "iris")
        assert (result.code, result.out) == (0, "")
        assert "nothing was changed" in result.err
    assert run("history", "-o", "name").out == "revisions/1\n"


def test_after_an_error_the_editor_opens_again(run: Run, applied: Server, editor: Editor) -> None:
    editor.does(
        "sed -i 's/blue: 10000/blue: 9000/' \"$1\"",
        "sed -i 's/name: green/nme: green/' \"$1\"",
        "sed -i 's/nme: green/name: green/; s/blue: 9000/green: 100%/' \"$1\"",
    )
    assert run("edit", "models/iris").code == 0
    assert split_of(run) == {"green": 10000}
    _, second, third = editor.seen()
    assert "#! It was not applied" in second
    assert re.search(r"#! line \d+: models\[0\].split: the shares sum to 9,000", second)
    assert "unknown key 'nme'" in third
    assert "the shares sum" not in third


def test_an_error_that_is_not_corrected_keeps_the_file(run: Run, applied: Server, editor: Editor) -> None:
    editor.does("sed -i 's/blue: 10000/blue: 9000/' \"$1\"")
    result = run("edit", "models/iris")
    assert (result.code, len(editor.seen())) == (Exit.INVALID, 2)
    assert "blue: 9000" in kept_file(result.err).read_text()


def test_a_concurrent_change_keeps_the_file(
    run: Run, applied: Server, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = f"{TURNOUT} switch iris --to green --no-wait >/dev/null"
    editor.does(f"{switch}; sed -i 's/port: 8002/port: 8003/' \"$1\"")
    result = run("edit", "models/iris")
    assert (result.code, len(editor.seen())) == (Exit.CONFLICT, 1)
    assert "models/iris has changed since it was read" in result.err
    assert "port: 8003" in kept_file(result.err).read_text()
    assert split_of(run) == {"green": 10000}


def test_an_edit_that_cuts_traffic_says_what_is_lost(run: Run, applied: Server, editor: Editor) -> None:
    applied.connect("edge-1")
    editor.does("sed -i 's/port: 10000/port: 10001/' \"$1\"")
    result = run("edit", "gateways/edge")
    assert (result.code, len(editor.seen())) == (Exit.CONFLICT, 1)
    assert "Error: this change cuts traffic:\n    edge-1 loses its listener 0.0.0.0:10000" in result.err
    assert re.search(r"It needs --allow-cut, or --cut-token [0-9a-f]{16}-1 to be refused again", result.err)
    assert "port: 10001" in kept_file(result.err).read_text()


def test_an_edit_does_not_rename(run: Run, applied: Server, editor: Editor) -> None:
    editor.does("sed -i 's,name: models/iris,name: models/wine,' \"$1\"")
    result = run("edit", "models/iris")
    assert result.code == Exit.INVALID
    assert "does not rename, add or delete any: models/iris" in result.err


def test_an_editor_that_fails(run: Run, applied: Server, editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    editor.does("exit 3")
    failed = run("edit", "models/iris")
    assert (failed.code, "exited with 3" in failed.err) == (Exit.CONFLICT, True)
    monkeypatch.setenv("EDITOR", "/nowhere/editor")
    missing = run("edit", "models/iris")
    assert (missing.code, "can't be started: no such file" in missing.err) == (Exit.CONFLICT, True)
    assert run("edit", "models/wine").code == Exit.NOT_FOUND
