"""Commands that the demo suggests: they work in a shell that knows nothing of this one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from controlplane.demo import suggestions

BODY = {"inputs": [{"name": "it's", "data": [1.0]}]}


def test_the_first_command_makes_turnout_known_to_another_terminal(tmp_path: Path) -> None:
    first, *others = suggestions.commands("127.0.0.1:18080", 10_000, BODY)
    script = f'{first}\ncommand -v turnout\necho "$TURNOUT_API"'
    result = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, cwd=tmp_path, check=True
    )
    assert result.stdout.splitlines() == [str(Path(sys.executable).with_name("turnout")), "127.0.0.1:18080"]
    assert all(command.startswith(("turnout ", "curl ")) for command in others)


def test_a_folder_with_spaces_is_quoted(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "turnout").write_text("#!/bin/sh\necho here\n")
    (folder / "turnout").chmod(0o755)
    first = suggestions.commands("x:1", 1, BODY, folder / "turnout")[0]
    result = subprocess.run(["sh", "-c", f"{first}; turnout"], capture_output=True, text=True, check=True)
    assert result.stdout == "here\n"


def test_the_request_is_one_argument_of_the_shell() -> None:
    last = suggestions.commands("x:1", 1, BODY)[-1].replace("curl", "printf '%s\\n'", 1)
    result = subprocess.run(["sh", "-c", last], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == '{"inputs":[{"name":"it\'s","data":[1.0]}]}'
    assert "x-model-version: green" in result.stdout
