"""What the tests of the simulated fleet share."""

from pathlib import Path

import pytest

from tests.tools import program, run

FLEET = Path(__file__).parents[2] / "bench" / "fleet"


@pytest.fixture(scope="session")
def go() -> Path:
    """The simulator's folder, where there are Go and the modules that it needs."""
    run([program("go", "the simulator and the peers are written in it"), "mod", "download"], FLEET)
    return FLEET
