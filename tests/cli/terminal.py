"""A command in a terminal, for tests of what is updated in place, asked and coloured."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator

from tests.cli.conftest import TURNOUT


class Terminal:
    """A command in a terminal of 80 columns."""

    def __init__(self, *args: str, **environ: str) -> None:
        self.master, slave = pty.openpty()
        env = {**os.environ, "COLUMNS": "80", "LINES": "40", "TERM": "xterm-256color", **environ}
        self.process = subprocess.Popen([TURNOUT, *args], stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)
        self.seen = ""

    def until(self, text: str) -> None:
        """Read until `text` appears, ignoring colours."""
        deadline = time.monotonic() + 60
        while text not in self.plain:
            assert time.monotonic() < deadline, self.plain
            if not self.read(0.5) and self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self.plain}")

    def read(self, seconds: float) -> bool:
        """Read what comes within `seconds` seconds. Return False if nothing comes."""
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    @property
    def plain(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def end(self) -> int:
        deadline = time.monotonic() + 60
        while self.read(0.1) or (self.process.poll() is None and time.monotonic() < deadline):
            pass
        return self.process.wait(0)


@contextlib.contextmanager
def terminal(*args: str, **environ: str) -> Iterator[Terminal]:
    opened = Terminal(*args, **environ)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        os.close(opened.master)
