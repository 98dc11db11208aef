"""Break the cores on purpose, one break of `breaks.txt` after another, and report which breaks the tests notice.

    python -m tests.xds.breaks           all breaks; the exit status is 1 if a break was not noticed
    python -m tests.xds.breaks 08 32     the breaks of these rules

Each break is made in a copy of the tree. The tree itself is never changed.
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

# The tests that must notice a break, the quickest first. Load reports have tests of their own.
TESTS = (
    ("test_transcripts.py",),
    (
        "test_stream.py",
        "test_delta.py",
        "test_sotw.py",
        "test_refusals.py",
        "test_subscription.py",
        "test_wire.py",
        "test_held_back.py",
    ),
    ("test_histories.py",),
)
LOAD_REPORT_TESTS = (("test_lrs.py",),)


@dataclass(frozen=True)
class Break:
    """One deliberate error."""

    # Number of the rule in docs/protocol.md, with two digits; or `d` and the number of a defect.
    rule: str
    # A module of controlplane/xds, or of controlplane.
    module: str
    # The wrong behaviour.
    name: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        """The file to break, from the root."""
        path = CORES / f"{self.module}.py"
        return path if (ROOT / path).exists() else CORES.parent / f"{self.module}.py"


def read(text: str) -> Iterator[Break]:
    """Yield the breaks that a text describes."""
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            where, _, name = lines[0].partition(": ")
            rule, module = where.split()
            old, new = ("\n".join(line[1:] for line in lines[1:] if line[0] == sign) for sign in "-+")
            yield Break(rule, module, name, old, new)


BREAKS = tuple(read((Path(__file__).parent / "breaks.txt").read_text()))


def problems(breaks: Iterable[Break] = BREAKS) -> Iterator[str]:
    """Yield an error for each break whose old text is not in its module exactly once."""
    for each in breaks:
        count = (ROOT / each.path).read_text().count(each.old)
        if count != 1:
            yield f"breaks.txt: {each.rule} {each.name}: mend the old text; it is {count} times in {each.path}, not once"


def caught(broken: Break) -> str:
    """Return the test files of the first group that notices a break; "" if no test notices it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("controlplane", "tests/xds"):
            shutil.copytree(ROOT / part, copy / part)
        for file in ("pyproject.toml", "tests/__init__.py"):
            shutil.copy(ROOT / file, copy / file)
        module = copy / broken.path
        module.write_text(module.read_text().replace(broken.old, broken.new))
        options = ["-x", "-q", "-m", "not soak and not slow", "-p", "no:cacheprovider", "--timeout=100"]
        for tests in LOAD_REPORT_TESTS if broken.module == "lrs" else TESTS:
            command = [sys.executable, "-m", "pytest", *options, *(f"tests/xds/{test}" for test in tests)]
            environment = {**os.environ, "PYTHONPATH": str(copy)}
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
            if done.returncode == 1:
                return " ".join(tests)
            if done.returncode != 0:
                raise RuntimeError(f"{broken.rule} {broken.name}: the tests did not run\n{done.stdout}{done.stderr}")
    return ""


def main(rules: list[str]) -> int:
    """Make the breaks of these rules (none: all), and print the tests that notice each. Returns the exit status."""
    rules = [rule.zfill(2) for rule in rules]
    breaks = [b for b in BREAKS if not rules or b.rule in rules]
    if errors := list(problems(breaks)):
        sys.stderr.write("\n".join(errors) + "\n")
        return 2
    missed = 0
    for broken in breaks:
        tests = caught(broken)
        missed += not tests
        sys.stdout.write(f"{broken.rule:3} {broken.name}: {tests or 'MISSED'}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(breaks) - missed} of {len(breaks)} breaks noticed\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
