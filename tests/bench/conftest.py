"""What the tests of the simulated fleet share."""

import shutil
import subprocess
from pathlib import Path

import pytest

FLEET = Path(__file__).parents[2] / "bench" / "fleet"


@pytest.fixture(scope="session")
def go() -> Path:
    """The simulator's folder, where there are Go and the modules that it needs."""
    if shutil.which("go") is None:
        pytest.skip("the simulator and the peers are written in Go, and there is none")
    done = subprocess.run(["go", "mod", "download"], cwd=FLEET, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"the Go modules of the simulator can't be had: {done.stderr[-300:]}"
    return FLEET
