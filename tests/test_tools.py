"""Missing programs: skipped on a developer's machine, failed in CI."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from tests import tools


def test_a_missing_program_skips_the_test_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="`no-such-program` is not on PATH: it draws"):
        tools.program("no-such-program", "it draws")


def test_a_missing_program_fails_the_test_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="`no-such-program` is not on PATH: it draws"):
        tools.program("no-such-program", "it draws")


def test_a_program_that_exists_is_found() -> None:
    assert os.access(tools.program("sh", "it runs scripts"), os.X_OK)


def test_a_go_tool_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text('#!/bin/sh\necho built >> count\necho "$4" > "$3"\n')
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(go.parent), prepend=os.pathsep)
    for name in ("go.mod", "go.sum"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    output = tmp_path / "build" / "tool"
    for _ in range(2):
        assert tools.go_tool(tmp_path, "example.com/tool", output) == output
    assert output.read_text() == "example.com/tool\n"
    assert (tmp_path / "count").read_text() == "built\n"
    os.utime(tmp_path / "go.sum", (2**32, 2**32))
    tools.go_tool(tmp_path, "example.com/tool", output)
    assert (tmp_path / "count").read_text() == "built\nbuilt\n"


def test_builds_with_one_lock_follow_each_other(tmp_path: Path) -> None:
    """The suite runs in two processes. The lock is between open files, so threads show the same."""
    runs: list[str] = []

    def build(name: str) -> None:
        with tools.alone(tmp_path / "tool.lock"):
            runs.append(f"{name} begins")
            time.sleep(0.05)
            runs.append(f"{name} ends")

    with ThreadPoolExecutor() as pool:
        list(pool.map(build, "abc"))
    assert [run.split()[1] for run in runs] == ["begins", "ends"] * 3
    assert all(begin[0] == end[0] for begin, end in pairwise(runs) if begin.endswith("begins"))


def test_packages_are_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    npm = "#!/bin/sh\necho installed >> count\nmkdir -p node_modules\ntouch node_modules/.package-lock.json\n"
    for name, text in (("npm", npm), ("node", "#!/bin/sh\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    (tmp_path / "package-lock.json").touch()
    tools.npm_modules(tmp_path)
    tools.npm_modules(tmp_path)
    assert (tmp_path / "count").read_text() == "installed\n"
    os.utime(tmp_path / "package-lock.json", (2**32, 2**32))
    tools.npm_modules(tmp_path)
    assert (tmp_path / "count").read_text() == "installed\ninstalled\n"


def test_a_command_that_fails_fails_the_test_with_its_output(tmp_path: Path) -> None:
    assert tools.run([sys.executable, "-c", "print(1)"], tmp_path) == "1\n"
    with pytest.raises(pytest.fail.Exception, match="no good"):
        tools.run([sys.executable, "-c", "raise SystemExit('no good')"], tmp_path)
    assert tools.run(["sh", "-c", "echo $COLOUR"], tmp_path, COLOUR="red") == "red\n"
