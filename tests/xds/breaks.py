"""Breaks the cores on purpose, one break of `breaks.txt` at a time, and tells which ones the tests see.

    python -m tests.xds.breaks           every break; the exit status is 1 when one was missed
    python -m tests.xds.breaks 08 32     those of these rules

Each is made in a copy of the tree; nothing here is ever changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CORES = Path("controlplane/xds")

# What has to notice, the quickest first.
TESTS = ("test_lrs.py", "test_transcripts.py", "test_streams.py", "test_decoders.py", "test_histories.py")


@dataclass(frozen=True)
class Break:
    """One wrong thing."""

    # Number of the rule, or `d` and that of the defect, as in docs/protocol.md.
    rule: str
    # A module of controlplane/xds, or of controlplane.
    module: str
    # What the server does then.
    name: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        """The file to break, from the root."""
        path = CORES / f"{self.module}.py"
        return path if (ROOT / path).exists() else CORES.parent / f"{self.module}.py"


def read(text: str) -> Iterator[Break]:
    """The breaks that a text describes."""
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            where, _, name = lines[0].partition(": ")
            rule, module = where.split()
            old, new = ("\n".join(line[1:] for line in lines[1:] if line[0] == sign) for sign in "-+")
            yield Break(rule, module, name, old, new)


BREAKS = tuple(read((Path(__file__).parent / "breaks.txt").read_text()))


def problems(found: Iterable[Break] = BREAKS) -> Iterator[str]:
    """Breaks that can't be made any more: the text that they replace is not there, or not once."""
    for made in found:
        count = (ROOT / made.path).read_text().count(made.old)
        if count != 1:
            yield f"{made.rule} {made.name}: found {count} times in {made.module}.py"


def caught(made: Break) -> str:
    """The file of tests that sees it; "" when none does."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("controlplane", "tests/xds"):
            shutil.copytree(ROOT / part, copy / part)
        for file in ("pyproject.toml", "tests/__init__.py"):
            shutil.copy(ROOT / file, copy / file)
        module = copy / made.path
        module.write_text(module.read_text().replace(made.old, made.new))
        options = ["-x", "-q", "-m", "not soak", "-p", "no:cacheprovider", "--timeout=100"]
        for test in TESTS:
            command = [sys.executable, "-m", "pytest", *options, f"tests/xds/{test}"]
            environment = {**os.environ, "PYTHONPATH": str(copy)}
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
            if done.returncode == 1:
                return test
            if done.returncode != 0:
                raise RuntimeError(f"{made.rule} {made.name}: the tests did not run\n{done.stdout}{done.stderr}")
    return ""


def main(rules: list[str]) -> int:
    """Makes each break, and prints what came of it."""
    found = [b for b in BREAKS if not rules or b.rule in rules]
    if wrong := list(problems(found)):
        sys.stderr.write("\n".join(wrong) + "\n")
        return 2
    missed = 0
    for made in found:
        test = caught(made)
        missed += not test
        sys.stdout.write(f"{made.rule:3} {made.name}: {test or 'MISSED'}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(found) - missed} of {len(found)} breaks caught\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
