"""The virtual environments of SDKs and model servers. `make setup-sdks` makes them, one for each file in `requirements`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.tools import missing


def sdk_python(name: str) -> str:
    """Return the Python of an environment. Skip the test if it does not exist; with CI=true the test fails."""
    python = Path(sys.prefix) / "sdks" / name / "bin" / "python"
    if not python.exists():
        missing(f"{python} does not exist; install it with `make setup-sdks`")
    return str(python)
