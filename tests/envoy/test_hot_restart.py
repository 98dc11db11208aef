"""An Envoy that replaces itself while it serves (hot restart): for a while two of them are one node."""

import asyncio
import random
from pathlib import Path

import pytest

from controlplane.demo.envoy import Envoy
from tests.envoy.test_matrix import Matrix, bootstrap, callers

pytestmark = pytest.mark.envoy


def restartable(envoy: Envoy, base: int, epoch: int) -> Envoy:
    """Both share memory, under a number that no other Envoy of this machine has."""
    command = envoy.process.command
    command.remove("--disable-hot-restart")
    command += ["--base-id", str(base), "--restart-epoch", str(epoch)]
    command += ["--drain-time-s", "1", "--parent-shutdown-time-s", "2"]
    return envoy


@pytest.mark.parametrize("separate", [False, True], ids=["ads", "separate"])
@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_two_envoys_under_one_name_hand_over(tmp_path: Path, variant: str, separate: bool) -> None:
    base = random.randrange(1_000, 30_000)
    async with Matrix(tmp_path) as plane:
        await plane.apply()
        made = bootstrap(plane.xds_port, variant, separate=separate)
        streams = 3 if separate else 1
        async with restartable(Envoy(made), base, 0) as first:
            await plane.held(1)
            await plane.answers("blue")
            async with callers(plane.port) as came, restartable(Envoy(made), base, 1) as second:
                await second.ready()
                await plane.held(await plane.switch("green"))
                async with asyncio.timeout(20):
                    while first.process.running:  # noqa: ASYNC110  its parent is not told
                        await asyncio.sleep(0.05)
                await plane.connected(streams)
                await plane.answers("green")
                await plane.held(await plane.switch("blue"))
                assert await plane.ask() == "blue"
                assert came.keys() == {"blue", "green"}, came
