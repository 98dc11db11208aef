"""The simulated fleet and the peers speak mutual TLS. Needs Go."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.lines import simulator
from bench.scale import synced
from bench.tls import SECURE, SECURE_PEER, certificates, sides
from tests.bench.test_fleet import MODELS, PROXIES, switched


@pytest.mark.parametrize("name", [SECURE, SECURE_PEER])
async def test_every_proxy_gets_everything_over_mutual_tls_and_no_proxy_without_it(
    go: Path, tmp_path: Path, name: str
) -> None:
    start, flags = sides(certificates(tmp_path))[name]
    async with start(MODELS, tmp_path) as side:
        async with simulator(f"127.0.0.1:{side.port}", tmp_path, *flags) as fleet:
            await fleet.ask("open", n=PROXIES)
            assert (await synced(fleet))["synced"]["n"] == PROXIES
            done = await switched(next(side.moves), fleet)
            assert done["received"]["n"] == done["acked"]["n"] == PROXIES
        async with simulator(f"127.0.0.1:{side.port}", tmp_path) as plain:
            await plain.ask("open", n=1)
            assert not (await plain.ask("wait_synced", timeout=1))["ok"]
