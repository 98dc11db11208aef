"""The virtual environments of SDKs and model servers. `make setup-sdks` makes them, one for each file in `requirements`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.tools import missing


def sdk_python(name: str) -> str:
    """Return the Python of an environment. Skip the test if it does not exist; with CI=true the test fails."""
    environment = Path(sys.prefix) / "sdks" / name
    if not (environment / ".ready").exists():  # `make` writes it at the end
        missing(f"the environment {environment} is not installed; install it with `make setup-sdks`")
    return str(environment / "bin" / "python")
