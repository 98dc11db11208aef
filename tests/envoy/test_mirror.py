"""A mirror that hangs: live traffic does not notice, and what its copies hold has a bound."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controlplane.demo.lean import LeanServer
from controlplane.domain import Endpoint, Mirror, Model, Version
from tests.envoy.test_compiled import edge, made, rig

pytestmark = pytest.mark.envoy


async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads what comes until the other side ends it, and says nothing."""
    while await reader.read(65_536):
        pass
    writer.close()


async def test_a_mirror_that_never_answers_holds_little_and_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A minute would be long to wait for. Not the request timeout of the model: Envoy keeps copies to that by itself.
    monkeypatch.setattr("controlplane.compiler.clusters._MIRROR_TIMEOUT", 2.0)
    async with LeanServer(("blue",)) as lean, await asyncio.start_server(never_answers, "127.0.0.1", 0) as mute:
        ports = {"blue": lean.ports["blue"], "green": mute.sockets[0].getsockname()[1]}
        both = tuple(Version(n, (Endpoint("127.0.0.1", port),)) for n, port in ports.items())
        model = Model("iris", ("edge",), both, {"blue": 10_000}, mirror=Mirror("green"))
        async with rig(made(edge(), model), {}, tmp_path) as r:

            async def status() -> int:
                async with r.session.get(f"http://127.0.0.1:{r.ports['edge']}/v2/models/iris") as answer:
                    return answer.status

            async def of_copies() -> dict[str, int]:
                return {
                    n.rpartition(".")[2]: v for n, v in (await r.envoy.stats("^cluster.iris/green/mirror.upstream")).items()
                }

            assert [await status() for _ in range(500)] == [200] * 500
            held = await of_copies()
            assert 0 < held["upstream_rq_active"] <= 128
            assert 0 < held["upstream_cx_active"] <= 128
            # It was asked for more, which were not copied.
            assert held["upstream_rq_pending_overflow"] > 0
            # What it holds ends, with its connections.
            async with asyncio.timeout(20):
                while held["upstream_rq_active"] or held["upstream_rq_pending_active"] or held["upstream_cx_active"]:
                    await asyncio.sleep(0.05)
                    held = await of_copies()
            assert held["upstream_rq_max_duration_reached"] > 128
