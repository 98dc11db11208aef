"""Hot restart of an Envoy: for a while its old and its new process are connected under one node id."""

import asyncio
import random
from pathlib import Path

import pytest

from controlplane.demo.envoy import Envoy
from tests.envoy.test_matrix import Matrix, bootstrap, callers

pytestmark = pytest.mark.envoy


def restartable(envoy: Envoy, base: int, epoch: int) -> Envoy:
    """Let an Envoy take part in a hot restart. `base` is the id of the shared memory, and `epoch` counts the restarts."""
    command = envoy.process.command
    command.remove("--disable-hot-restart")
    command += ["--base-id", str(base), "--restart-epoch", str(epoch)]
    command += ["--drain-time-s", "1", "--parent-shutdown-time-s", "2"]
    return envoy


@pytest.mark.parametrize("separate", [False, True], ids=["ads", "separate"])
@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_a_hot_restart_loses_no_request_and_the_new_envoy_follows_switches(
    tmp_path: Path, variant: str, separate: bool
) -> None:
    base = random.randrange(1_000, 30_000)
    async with Matrix(tmp_path) as plane:
        await plane.apply()
        node = bootstrap(plane.xds_port, variant, separate=separate)
        streams = 3 if separate else 1
        async with restartable(Envoy(node), base, 0) as first:
            await plane.held(1)
            await plane.answers("blue")
            async with callers(plane.port) as answers, restartable(Envoy(node), base, 1) as second:
                await second.ready()
                await plane.held(await plane.switch("green"))
                async with asyncio.timeout(20):
                    while first.process.running:  # noqa: ASYNC110  nothing reports the end of a process that is no child
                        await asyncio.sleep(0.05)
                await plane.connected(streams)
                await plane.answers("green")
                await plane.held(await plane.switch("blue"))
                assert await plane.ask() == "blue"
                assert answers.keys() == {"blue", "green"}, answers
