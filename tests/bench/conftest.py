"""Fixtures for the tests of the simulated fleet."""

from pathlib import Path

import pytest

from tests.tools import program, run

FLEET = Path(__file__).parents[2] / "bench" / "fleet"


@pytest.fixture(scope="session")
def go() -> Path:
    """Return the simulator's folder, after downloading the Go modules that it needs. Skip the test without Go."""
    run([program("go", "the simulator and the peers are written in it"), "mod", "download"], FLEET)
    return FLEET
