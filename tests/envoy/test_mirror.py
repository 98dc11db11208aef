"""A mirror that hangs does not affect live traffic, and its copies use a bounded number of connections."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controlplane.demo.lean import LeanServer
from controlplane.domain import Endpoint, Mirror, Model, Version
from tests.envoy.test_compiled import edge, rig, state_of

pytestmark = pytest.mark.envoy


async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read until the other side closes the connection, and send nothing."""
    while await reader.read(65_536):
        pass
    writer.close()


async def test_a_mirror_that_never_answers_uses_few_connections_and_its_copies_time_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real timeout of one minute is too long for a test. The model's request timeout stays: Envoy applies it to copies,
    # too.
    monkeypatch.setattr("controlplane.compiler.clusters._MIRROR_TIMEOUT", 2.0)
    async with LeanServer(("blue",)) as lean, await asyncio.start_server(never_answers, "127.0.0.1", 0) as silent:
        ports = {"blue": lean.ports["blue"], "green": silent.sockets[0].getsockname()[1]}
        both = tuple(Version(n, (Endpoint("127.0.0.1", port),)) for n, port in ports.items())
        model = Model("iris", ("edge",), both, {"blue": 10_000}, mirror=Mirror("green"))
        async with rig(state_of(edge(), model), {}, tmp_path) as r:

            async def status() -> int:
                async with r.session.get(f"http://127.0.0.1:{r.ports['edge']}/v2/models/iris") as response:
                    return response.status

            async def mirror_stats() -> dict[str, int]:
                stats = await r.envoy.stats("^cluster.iris/green/mirror.upstream")
                return {name.rpartition(".")[2]: value for name, value in stats.items()}

            assert [await status() for _ in range(500)] == [200] * 500
            stats = await mirror_stats()
            assert 0 < stats["upstream_rq_active"] <= 128
            assert 0 < stats["upstream_cx_active"] <= 128
            # Further requests were not copied.
            assert stats["upstream_rq_pending_overflow"] > 0
            # The copies time out, and their connections are closed.
            async with asyncio.timeout(20):
                while stats["upstream_rq_active"] or stats["upstream_rq_pending_active"] or stats["upstream_cx_active"]:
                    await asyncio.sleep(0.05)
                    stats = await mirror_stats()
            assert stats["upstream_rq_max_duration_reached"] > 128
